"""Names in certificates: read from DER, and written as mod_ssl does."""

import ssl
import subprocess
from pathlib import Path

import pytest

from minicorn.serving.certificate import distinguished, dns_names


def make(folder: Path, *more: str) -> bytes:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "pem"), "-subj", "/CN=x"]
    subprocess.run([*command, *files, *more], check=True, capture_output=True)
    return ssl.PEM_cert_to_DER_cert((folder / "pem").read_text())


@pytest.mark.parametrize(
    ("alternatives", "names"),
    [
        ("DNS:a.test,DNS:*.B.test,IP:127.0.0.1,email:me@a.test", ["a.test", "*.b.test"]),
        ("critical,DNS:a.test", ["a.test"]),
        ("IP:::1", []),
        (",".join(f"DNS:name-{number}.test" for number in range(50)), [f"name-{number}.test" for number in range(50)]),
    ],
)
def test_the_dns_names_of_a_certificate(tmp_path: Path, alternatives: str, names: list[str]) -> None:
    assert dns_names(make(tmp_path, "-addext", f"subjectAltName={alternatives}")) == names


def test_a_certificate_without_names_has_none(tmp_path: Path) -> None:
    assert dns_names(make(tmp_path)) == []


def test_one_that_is_cut_is_an_error(tmp_path: Path) -> None:
    der = make(tmp_path, "-addext", "subjectAltName=DNS:a.test")
    position = der.index(b"\x06\x03\x55\x1d\x11")
    for end in range(position + 5, position + 15):
        with pytest.raises(ValueError, match="cut"):
            dns_names(der[:end])


def test_a_name_is_written_as_mod_ssl_does() -> None:
    name = ((("countryName", "CH"),), (("organizationName", "A, B"), ("organizationalUnitName", "x")))
    name += ((("organizationalUnitName", "#y "),), (("commonName", "me"),), (("1.2.3", "odd"),))
    assert distinguished("P", name) == {
        "P": "1.2.3=odd,CN=me,OU=\\#y\\ ,OU=x,O=A\\, B,C=CH",
        "P_C": "CH",
        "P_O": "A, B",
        "P_OU": "x",
        "P_OU_1": "#y ",
        "P_CN": "me",
        "P_1.2.3": "odd",
    }


def test_a_space_at_either_end_of_a_value_is_escaped_once() -> None:
    assert distinguished("P", ((("commonName", " x"),), (("commonName", " "),)))["P"] == "CN=\\ ,CN=\\ x"
