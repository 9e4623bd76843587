"""nats-py's client, made to survive what outsiders may send.

A NATS server passes on subjects, replies and headers as bytes that it does not look into. nats-py takes them for
UTF-8, its grammar for free of white space; at others it stops reading for good, and again at each new delivery of the
same stored message. One such message in an inbox would end every validator. Here unreadable bytes become U+FFFD and
headers without sense are none: who the message is from, its signature says.
"""

import re

import nats.protocol.parser
from nats.aio.client import Client, Srv
from nats.aio.msg import Msg

# The server splits a line at spaces and tabs alone, so a vertical tab or a form feed is a part of a subject.
_WORD = rb"([^ \t\r\n]+)[ \t]+"
_MESSAGE = re.compile(rb"\AMSG[ \t]+" + _WORD + _WORD + rb"(" + _WORD + rb")?(\d+)\r\n")
_MESSAGE_WITH_HEADERS = re.compile(rb"\AHMSG[ \t]+" + _WORD + _WORD + rb"(" + _WORD + rb")?(\d+)[ \t]+(\d+)\r\n")

# The grammar is a global of that module, so this is for all clients of the process.
nats.protocol.parser.MSG_RE = _MESSAGE
nats.protocol.parser.HMSG_RE = _MESSAGE_WITH_HEADERS


class TolerantClient(Client):
    """Reads on, whatever comes."""

    async def _connect_to_server(self, s: Srv) -> None:
        # A server that took the connection and hung up before it said anything: nobody else closes that socket.
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]  # nats-py ships part of its types
        await super()._connect_to_server(s)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return self.msg_class(
            subject=subject.decode("utf-8", "replace"),
            reply=reply.decode("utf-8", "replace"),
            data=data,
            headers=headers,
            _client=self,
            _sid=sid,
        )

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (UnicodeDecodeError, IndexError):
            return None
