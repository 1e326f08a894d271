# The exporter with the bundled checkpoint inside: pods have no folder of this repository. From its root:
#   docker build --file deploy/kubernetes/checkpoint.Dockerfile --tag tritonflare-checkpoint:0.1.0 .
ARG EXPORT_IMAGE=tritonflare-export:0.1.0
FROM ${EXPORT_IMAGE}
COPY checkpoints/minilm-sst2 /checkpoint
