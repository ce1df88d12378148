"""The smallest server that keeps the calibrator's start-up contract; `--port PORT`."""

import http.server
import os
import sys


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        token = os.environ["R_IRT_INTERNAL_TOKEN"]
        allowed = self.headers["Authorization"] == f"Bearer {token}"
        self.send_response(200 if allowed and self.path == "/healthz" else 401)
        self.end_headers()

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
