"""ClickHouse's HTTP interface in front of the engine as a library (chdb-core), for tests.

    python3 clickhouse_http.py DATA_DIRECTORY PORT

What drivers use of it: statements in `query` or in the body, inserts with their rows in the body,
`database`, `default_format`, settings and `param_…` in the address, user and password ignored,
bodies compressed by the driver (`decompress=1`), errors with their code in a header, /ping. A
request is a session of its own. An insert is durable when it is answered.

What it is not: a server with users, quotas, replicas or the native protocol.
"""

import email
import email.policy
import json
import re
import struct
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlparse

import lz4.block
import chdb  # noqa: F401  loads the engine
from chdb import _chdb

# Parameters of the interface itself; every other one is a setting of the engine.
NO_SETTINGS = {
    "query", "database", "default_format", "user", "password", "query_id", "session_id",
    "session_timeout", "session_check", "compress", "decompress", "role", "quota_key",
    "wait_end_of_query", "buffer_size", "enable_http_compression",
    "http_zlib_compression_level", "send_progress_in_http_headers",
}
INSERT = re.compile(r"^\s*INSERT\s+INTO\b", re.IGNORECASE)
FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
VALUES = re.compile(r"\bVALUES\s*$", re.IGNORECASE)
SETTING = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
CODE = re.compile(r"Code: (\d+)")
# Unknown table, unknown database.
NOT_FOUND = {"60", "81"}
BODY_BYTES_MAX = 256 << 20
# More statements at a time than these wait.
AT_ONCE = threading.Semaphore(4)


def text(value):
    """A text literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def decompressed(body):
    """The blocks of `decompress=1`: checksum (16 bytes), method, sizes, data."""
    parts, at = [], 0
    while at < len(body):
        method = body[at + 16]
        packed, plain = struct.unpack_from("<II", body, at + 17)
        data = body[at + 25 : at + 16 + packed]
        at += 16 + packed
        if method == 0x82:
            parts.append(lz4.block.decompress(data, uncompressed_size=plain))
        elif method == 0x02:
            parts.append(bytes(data))
        else:
            raise ValueError(f"compression method {method:#x} is not supported")
    return b"".join(parts)


def fields(body, content_type):
    """The parts of a form: drivers send the statement and its parameters so."""
    header = f"Content-Type: {content_type}\r\n\r\n".encode()
    form = email.message_from_bytes(header + body, policy=email.policy.HTTP)
    return [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True).decode())
        for part in form.iter_parts()
    ]


def execute(path, parameters, statement, rows):
    """The answer's bytes and what the statement read and wrote."""
    options = dict(parameters)
    connection = _chdb.connect(path)
    try:
        database = options.get("database") or "default"
        connection.query("USE `" + database.replace("`", "") + "`")
        for name, value in parameters:
            if name in NO_SETTINGS or name.startswith("param_"):
                continue
            if not SETTING.match(name):
                raise ValueError(f"Code: 115. {name} is no setting")
            literal = value if re.fullmatch(r"-?\d+", value) else text(value)
            connection.query(f"SET {name}={literal}")
        named = FORMAT.search(statement)
        if rows and INSERT.match(statement):
            # The engine wants the format beside the statement, not in it.
            target = VALUES.sub("", FORMAT.sub("", statement))
            insert = connection.send_insert(target, named.group(1) if named else "Values")
            connection.insert_append(insert, rows)
            result, answer = connection.insert_done(insert), b""
        else:
            form = named.group(1) if named else options.get("default_format", "TabSeparated")
            given = {name[6:]: value for name, value in parameters if name.startswith("param_")}
            result = connection.query(statement, form, params=given)
            answer = bytes(result.bytes())
        if result is not None and hasattr(result, "has_error") and result.has_error():
            raise RuntimeError(result.error_message())
        figures = (("read_rows", "rows_read"), ("read_bytes", "bytes_read"))
        summary = {name: str(getattr(result, get)()) for name, get in figures if hasattr(result, get)}
        return answer, summary
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    path_of_data = ""

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            if length > BODY_BYTES_MAX:
                raise ValueError(f"the body is larger than {BODY_BYTES_MAX} bytes")
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionResetError("the client went away")
            return body
        chunks, seen = [], 0
        while True:
            head = self.rfile.readline()
            if not head.endswith(b"\n"):
                raise ConnectionResetError("the client went away")
            length = int(head.split(b";")[0], 16)
            chunk = self.rfile.read(length)
            if len(chunk) < length:
                raise ConnectionResetError("the client went away")
            self.rfile.readline()
            if length == 0:
                return b"".join(chunks)
            seen += length
            if seen > BODY_BYTES_MAX:
                raise ValueError(f"the body is larger than {BODY_BYTES_MAX} bytes")
            chunks.append(chunk)

    def answer(self, status, body, headers):
        self.send_response(status)
        fixed = {
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Server-Display-Name": "chdb",
            "X-ClickHouse-Timezone": "UTC",
            "Content-Length": str(len(body)),
        }
        for name, value in {**fixed, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urlparse(self.path)
        if url.path == "/ping" or (url.path == "/" and not url.query and self.command == "GET"):
            return self.answer(200, b"Ok.\n", {})
        parameters = parse_qsl(url.query, keep_blank_values=True)
        options = dict(parameters)
        if "database" not in options and self.headers.get("X-ClickHouse-Database"):
            parameters.append(("database", self.headers["X-ClickHouse-Database"]))
        query_id = options.get("query_id") or str(uuid.uuid4())
        try:
            rows = self.body()
            if options.get("decompress") == "1":
                rows = decompressed(rows)
            if self.headers.get("Content-Type", "").startswith("multipart/form-data"):
                parameters += fields(rows, self.headers["Content-Type"])
                options, rows = dict(parameters), b""
            statement = options.get("query", "")
            if not INSERT.match(statement):
                # What of the statement is in the body follows what is in the address.
                statement, rows = (statement + "\n" + rows.decode()).strip(), b""
            with AT_ONCE:
                body, summary = execute(self.path_of_data, parameters, statement, rows)
            headers = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Summary": json.dumps(summary)}
            self.answer(200, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # whatever it is, the client is told
            message = str(error)
            found = CODE.search(message)
            code = found.group(1) if found else "1002"
            headers = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Exception-Code": code}
            self.answer(404 if code in NOT_FOUND else 500, message.encode() + b"\n", headers)

    do_POST = do_GET


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that went away is nobody's mistake."""


def main():
    path, port = sys.argv[1], int(sys.argv[2])
    Handler.path_of_data = path
    keep_alive = _chdb.connect(path)  # the engine stays while this does
    Server(("127.0.0.1", port), Handler).serve_forever()
    keep_alive.close()


if __name__ == "__main__":
    main()
