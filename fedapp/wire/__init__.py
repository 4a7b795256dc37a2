"""The wire: what the records of each message are called and hold. Packing and unpacking, nothing else.

| message  | server to SuperNode                            | reply                                           |
|----------|------------------------------------------------|-------------------------------------------------|
| query    | nothing                                        | config: clients hosted, faults; arrays: moments |
| train    | arrays: model; config: round, clients, weights | arrays: update or sum; metrics: by client       |
| evaluate | the same                                       | metrics: by client                              |
"""
