"""Code that kernels run, the same for every way."""

PREPARE = """
def _send(kind, content, buffers=None):
    kernel = get_ipython().kernel
    kernel.session.send(kernel.iopub_socket, kind, content, parent=_parent(), buffers=buffers)

def _parent():
    return get_ipython().kernel.get_parent()

def burst(count):
    for number in range(count):
        _send('stream', {'name': 'stdout', 'text': '%d\\n' % number})

def displays(count, size):
    # Nothing that could be compressed.
    import base64, os
    text = base64.b64encode(os.urandom(size)).decode()[:size]
    for number in range(count):
        _send('display_data', {'data': {'text/plain': text}, 'metadata': {}, 'transient': {}})

def prints(megabytes):
    line = 'y' * 99
    for number in range(megabytes * 10_000):
        print(line)

def buffers_down(count, size):
    data = bytes(size)
    for number in range(count):
        _send('comm_msg', {'comm_id': 'benchmark', 'data': {}}, [data])

def buffers_up():
    def opened(comm, message):
        comm.on_msg(lambda message: None)
    get_ipython().kernel.comm_manager.register_target('benchmark', opened)

def lines(seconds, pause):
    import time
    number, began = 0, time.monotonic()
    while number * pause < seconds:
        print('line', number, flush=True)
        number += 1
        time.sleep(max(0, began + number * pause - time.monotonic()))

def flood(seconds, kind):
    import time
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        burst(100) if kind == 'lines' else displays(1, 1_000_000)
"""
