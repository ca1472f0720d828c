"""A consumer of webhooks as a stranger would write it: it verifies calls with the function that the guide prints.

usage: webhook_consumer.py GUIDE FOLDER PORT   (PORT 0: a free one)

FOLDER holds what the test tells and is told: `statuses` (one a line; the calls are answered with them in turn, then with
204), `secrets` (one a line), `staging` (path of the staging file), and `calls` (one JSON object a line, written here).
The first line on stdout is the port.
"""

import http.server
import json
import pathlib
import re
import sqlite3
import sys
import time


def printed_verify(guide):
    """The function as the guide prints it."""
    block = re.search(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)
    names = {}
    exec(compile(block.group(1), str(guide), "exec"), names)
    return names["verify"]


def lines(path):
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def staged(path, batch):
    """What a reader finds in the staging file at this moment: the batch's state and its rows."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as reader:
            state = reader.execute("SELECT state FROM malote_batches WHERE batch = ?", [batch]).fetchone()
            rows = reader.execute("SELECT count(*) FROM flan WHERE _batch = ?", [batch]).fetchone()
            return {"state": state[0] if state else None, "rows": rows[0]}
    except sqlite3.Error as error:
        return {"error": str(error)}


def main():
    guide, folder, port = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    verify = printed_verify(guide)
    statuses = [int(word) for word in lines(folder / "statuses")]

    class Consumer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            header = self.headers["X-Malote-Signature"]
            secrets = lines(folder / "secrets")
            event = json.loads(body)
            status = statuses.pop(0) if statuses else 204
            old = f"t={int(time.time()) - 301}," + header.split(",", 1)[1]
            call = {
                "path": self.path,
                "status": status,
                "event": event,
                "type": self.headers["X-Malote-Event"],
                "attempt": int(self.headers["X-Malote-Attempt"]),
                "contentType": self.headers["Content-Type"],
                "signatures": header.count("v1="),
                "verified": [verify(secret, header, body) for secret in secrets],
                "tampered": [verify(secret, header, body + b" ") for secret in secrets],
                "old": [verify(secret, old, body) for secret in secrets],
                "stranger": verify("whsec_" + "0" * 64, header, body),
            }
            place = lines(folder / "staging")
            if place and "batchId" in event["data"]:
                call["staged"] = staged(place[0], event["data"]["batchId"])
            with open(folder / "calls", "a", encoding="utf-8") as calls:
                calls.write(json.dumps(call) + "\n")
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Consumer)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
