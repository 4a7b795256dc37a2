"""Secure aggregation: SecAgg+ (Bell et al. 2020; with everyone as neighbour Bonawitz et al. 2017), without networks.

Clients mask what they send so that the masks cancel in the sum over the cohort. The server opens that sum and nothing
else, also where clients drop out on the way. One file for each part of it: `settings` (what can work), `view` (what a
round's clients agree on), `keys`, `shamir`, `masks`, `quantise`, and the two sides as state machines, `client` and
`server`.
"""
