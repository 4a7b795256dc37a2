"""A warm worker on a device: one process that handles message after message, with its imports and its data ready.

Flower starts a new process for every message. That process is thin (`client_app`): it passes the message on to the
worker over a Unix socket that only its owner can open, and where there is no worker it handles the message itself.
Messages travel as Flower's own protocol buffers and JSON; nothing in them is executed.
"""
