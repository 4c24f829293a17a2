"""The use cases: what each request does with NATS, as async functions over the bridge's `Bus`.

They run on the bridge's loop and know neither Flask nor nats-py. Composing a message and reading an answer are plain
functions beside them, called before and after the hop on the request's own thread: only bytes, headers and small
values cross.
"""
