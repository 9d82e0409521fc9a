"""A real nginx in front, as an operator sets it up."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import PATIENCE, wait_until

# Whatever it writes stays in its directory
MAIN = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid nginx.pid; error_log stderr warn;
events {{}}
http {{
    access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;
    uwsgi_temp_path t4; scgi_temp_path t5;
    {http}
}}
stream {{ {stream} }}
"""


@contextmanager
def nginx(folder: Path, port: int, http: str = "", stream: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """nginx with these blocks, once it listens on `port`."""
    folder.mkdir()
    (folder / "nginx.conf").write_text(MAIN.format(http=http, stream=stream))
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def listens() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, "nginx listens")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
