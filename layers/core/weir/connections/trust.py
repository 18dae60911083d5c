"""The one TLS client context of a process.

Parsing a bundle of certificates takes 25 ms on a whole core, and more on a small function. OpenSSL
can instead look an authority up in a directory, by the hash of its name, when a server names it
(SSL_CTX_load_verify_locations, capath). `layers/certificates.py` makes such a directory of
certifi's bundle, and the dependencies layer carries it.
"""

import functools
import os
import ssl
import threading
from collections.abc import Mapping

# Beside this package, where Lambda merges the layers.
DIRECTORY = os.path.join(os.path.dirname(__file__), "..", "..", "certificates")


_one_at_a_time = threading.Lock()


def context() -> ssl.SSLContext:
    """Return the context that all connections of this process share; TLS sessions belong to it."""
    with _one_at_a_time:  # a store and a provider may be dialled at once
        return _of_this_process()


@functools.cache
def _of_this_process() -> ssl.SSLContext:
    return new_context(os.environ, DIRECTORY)


def new_context(env: Mapping[str, str], directory: str) -> ssl.SSLContext:
    """Make a context that verifies the certificate and the host's name.

    It trusts what SSL_CERT_FILE and SSL_CERT_DIR of `env` name, as OpenSSL does; else the
    authorities in `directory`; where that does not exist, certifi's bundle, or the system's. Raises
    OSError if what `env` names cannot be read.
    """
    file, folder = env.get("SSL_CERT_FILE") or None, env.get("SSL_CERT_DIR") or None
    if not file and not folder:
        if os.path.isdir(directory):
            folder = directory
        else:
            file = _bundle()
    tls = ssl.create_default_context(cafile=file, capath=folder)
    tls.set_alpn_protocols(["http/1.1"])  # what httpcore would set on it anyway
    return tls


def _bundle() -> str | None:
    """Return None, which stands for the system's, in a function without the dependencies layer."""
    try:
        import certifi
    except ImportError:
        return None
    return certifi.where()
