"""The wire: what the records of each message are called and hold. Packing and unpacking, nothing else.

| message  | server to SuperNode                                       | reply                                        |
|----------|-----------------------------------------------------------|----------------------------------------------|
| query    | nothing                                                   | config: clients, faults; arrays: moments     |
| train    | arrays: model; config: round, clients, weights, lr-factor | arrays: sum, or arrays-C: client C's update; |
|          |                                                           | metrics: by client                           |
| evaluate | the same                                                  | metrics: by client                           |
"""
