"""moto's S3 server, answering one request at a time.

As shipped it serves each request on a thread and looks for an existing key before it sets it, without a lock: on a busy
machine two racing conditional puts can both win. The probe finds that, rightly. A real S3 decides one after the other, and
so does this.
"""

import io
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

application = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def one_at_a_time(environ, start_response):
    # The body is read before the turn is taken: a slow sender holds up nobody.
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length:
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
    with turn:
        return [b"".join(application(environ, start_response))]


run_simple("127.0.0.1", 0, one_at_a_time, threaded=True)
