"""ZMTP, the protocol that ZMQ sockets speak over TCP, mostly as the end that listens sees it; no I/O.

RFC 37 (ZMTP 3.1, https://rfc.zeromq.org/spec/37/) with the mechanisms NULL and CURVE. Peers of 3.0 (RFC 23)
are served alike. Only what a Jupyter kernel's sockets need is here: what came before ZMTP 3 is refused, as are other
patterns than REQ, DEALER and SUB towards us.

Why not libzmq: none of its calls tells when a message has left the process, so after a broken process nobody knows what
its clients have. And each of its contexts costs two threads and each message two hops between them.
"""
