"""A mail server that is not ours (aiosmtpd), as mails of alerts meet one.

usage: mail_server.py FOLDER PORT starttls|tls|none [CERTIFICATE KEY] [USER PASSWORD]

Writes each mail it takes into FOLDER/mails, one JSON object a line. Where a user is given, nobody mails without that login.
There is no mailbox "nobody".
The first line on stdout says that it listens.
"""

import email
import email.policy
import json
import pathlib
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


class Desk:
    def __init__(self, folder):
        self.mails = folder / "mails"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 there is no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 known"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        told = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "sender": mail["From"],
            "subject": mail["Subject"],
            "id": mail["Message-ID"],
            "date": mail["Date"] is not None,
            "text": mail.get_content(),
            # `session.ssl` is set by STARTTLS alone.
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "login": bool(session.authenticated),
        }
        with self.mails.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
        return "250 taken"


def main():
    folder, port, mode = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    rest = sys.argv[4:]
    more = {}
    if mode != "none":
        certificate, key, *rest = rest
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if mode == "tls":
            more["ssl_context"] = context
        else:
            more["tls_context"] = context
            more["require_starttls"] = True
    if rest:
        user, password = rest

        def authenticator(server, session, envelope, mechanism, data):
            fits = data == LoginPassword(user.encode(), password.encode())
            return AuthResult(success=fits, handled=False)

        more["authenticator"] = authenticator
        more["auth_required"] = True
        more["auth_require_tls"] = False
    controller = Controller(Desk(folder), hostname="127.0.0.1", port=port, **more)
    controller.start()
    print("listens", flush=True)
    # Until the test ends this process.
    threading.Event().wait()


if __name__ == "__main__":
    main()
