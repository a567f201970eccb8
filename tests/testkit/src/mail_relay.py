"""A relay of mails for tests: aiosmtpd, which prints what it takes, one line of JSON for each mail.

Arguments: how it is secured (`local`, `starttls` or `wrapped`), a certificate and its key, and the one user with the
password, `-` where it asks nobody. It refuses whoever is named `gone`, and wants to be asked again for `later`.
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

secured, certificate, key, user, password = sys.argv[1:]


class Relay:
    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list) -> str:
        if address.startswith("gone@"):
            return "550 no such mailbox"
        if address.startswith("later@"):
            return "450 greylisted"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "text": envelope.content.decode(),
            "encrypted": session.ssl is not None or secured == "wrapped",
            "user": session.auth_data.decode() if session.authenticated else None,
        }
        print("MAIL", json.dumps(mail), flush=True)
        return "250 OK"


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    right = (data.login, data.password) == (user.encode(), password.encode())
    return AuthResult(success=right, handled=right, auth_data=data.login)


async def main() -> None:
    context = None
    if secured != "local":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)

    def one() -> SMTP:
        return SMTP(
            Relay(),
            tls_context=context if secured == "starttls" else None,
            require_starttls=secured == "starttls",
            authenticator=authenticate,
            auth_required=user != "-",
            # Wrapped, the library does not see that the way is encrypted.
            auth_require_tls=secured == "starttls",
        )

    wrapped = context if secured == "wrapped" else None
    server = await asyncio.get_running_loop().create_server(one, "127.0.0.1", 0, ssl=wrapped)
    print(f"LISTENING {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


asyncio.run(main())
