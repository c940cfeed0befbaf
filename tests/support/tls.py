"""Certificates for tests: an authority of its own, which a context trusts, and a server's certificate for some names."""

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificates(NamedTuple):
    """A server's context, and the file with the authority that has signed it."""

    server: ssl.SSLContext
    authority: Path

    def client(self) -> ssl.SSLContext:
        """A context that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.authority))


def create_certificates(folder: Path, names: str = "DNS:upstream.example,IP:127.0.0.1") -> Certificates:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
               "-subj", "/CN=test", "-addext", f"subjectAltName={names}",
               "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return Certificates(server, certificate)
