"""Files, for drivers: private keys to read, content to upload, blobs to keep.

Everything here blocks, and imports no event loop: a driver calls it in a worker thread. It is a
package of its own because the core opens no file, and the drivers know nothing of each other.
"""

from pie_files.blobs import BlobFolder, ReceivedBlob
from pie_files.keys import KeyFileWarning, ParsedPrivateKey
from pie_files.sources import FileSource, SourceChanged, UploadContent

__all__ = [
    "BlobFolder",
    "FileSource",
    "KeyFileWarning",
    "ParsedPrivateKey",
    "ReceivedBlob",
    "SourceChanged",
    "UploadContent",
]
