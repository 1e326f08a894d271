"""The protocol over HTTP: ``/v2``, in JSON and with binary tensors."""
