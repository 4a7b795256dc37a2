"""Vertical federated learning: parties hold different columns of the same entities and train one split network.

What the label party and the other parties both need; their handlers are in `fedapp/client/party/`, the server's side in
`fedapp/server/vertical/`. The server relays sealed payloads and holds neither features, labels nor a model.
"""
