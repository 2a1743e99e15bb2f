"""Programs as users build them, with other people's toolchains, and blobs of every size."""
