# Two images from one file: `--target pod` (the engine) and `--target operator`.
#
# Nothing is fetched here but BASE: `make images` collects the wheels that requirements.lock names in build/wheels (and
# builds both images); a plain `docker build --target pod .` works after it. BASE is any image with Python 3.11 and no
# more; the default has a shell, the one `make images` makes from Debian's packages has none. No step below needs one.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# ---- an environment for each, libraries only: these layers change with the lock
FROM ${BASE} AS environment
ENV SOURCE_DATE_EPOCH=0 PYTHONDONTWRITEBYTECODE=1
COPY build/wheels/pip /wheels/pip
COPY scripts/image/install.py scripts/image/sbom.py /image/
RUN ["python3", "-m", "venv", "--without-pip", "/opt/posthof"]

FROM environment AS pod-libraries
COPY build/wheels/pod /wheels/pod
RUN ["/opt/posthof/bin/python3", "/image/install.py", "/wheels/pod", "/"]

FROM environment AS operator-libraries
COPY build/wheels/operator /wheels/operator
RUN ["/opt/posthof/bin/python3", "/image/install.py", "/wheels/operator", "/"]

# ---- our own source: below /own, so that the last layer of an image holds nothing else
FROM pod-libraries AS pod-source
COPY build/wheels/posthof /wheels/posthof
RUN ["/opt/posthof/bin/python3", "/image/install.py", "/wheels/posthof", "/own"]
RUN ["/opt/posthof/bin/python3", "/image/sbom.py", "posthof-pod", "/own/opt/posthof/sbom.cdx.json", \
     "/opt/posthof/lib/python3.11/site-packages", "/own/opt/posthof/lib/python3.11/site-packages"]

FROM operator-libraries AS operator-source
COPY build/wheels/posthof /wheels/posthof
RUN ["/opt/posthof/bin/python3", "/image/install.py", "/wheels/posthof", "/own"]
RUN ["/opt/posthof/bin/python3", "/image/sbom.py", "posthof-operator", "/own/opt/posthof/sbom.cdx.json", \
     "/opt/posthof/lib/python3.11/site-packages", "/own/opt/posthof/lib/python3.11/site-packages"]

# ---- the images. PYTHONUNBUFFERED: a line of the log is there when it is written.
FROM ${BASE} AS base
ENV PATH=/opt/posthof/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
WORKDIR /
USER 65532:65532

FROM base AS operator
COPY --from=operator-libraries /opt/posthof /opt/posthof
COPY --from=operator-source /own/ /
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="posthof-operator" \
      org.opencontainers.image.description="Posthof: from mail resources to running mail servers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      dev.posthof.sbom="/opt/posthof/sbom.cdx.json"
EXPOSE 8080 9443
ENTRYPOINT ["posthof-operator"]
CMD ["run"]

FROM base AS pod
COPY --from=pod-libraries /opt/posthof /opt/posthof
COPY --from=pod-source /own/ /
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="posthof-pod" \
      org.opencontainers.image.description="Posthof: the engine that receives, queues and delivers mail" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      dev.posthof.sbom="/opt/posthof/sbom.cdx.json"
EXPOSE 2525 4465 5587 8080
ENTRYPOINT ["posthof"]
CMD ["pod"]
