# The server and its workers: `docker build -t llmbackend .`; compose.yaml runs it. No model is in it: they are pulled
# into the volume /data when a container starts, unless servers for chat and embeddings are set.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/llmbackend
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY sdk sdk
COPY llmbackend llmbackend
RUN /opt/llmbackend/bin/pip install --no-cache-dir '.[embedded,server,postgres,redis]'

FROM python:3.12-slim
# A number of its own, so that volumes belong to it wherever they are mounted.
RUN groupadd --gid 10001 llmbackend \
    && useradd --uid 10001 --gid llmbackend --no-create-home --home-dir /data --shell /usr/sbin/nologin llmbackend \
    && install --directory --owner=llmbackend --group=llmbackend --mode=0700 /data /models /backups
COPY --from=build /opt/llmbackend /opt/llmbackend
ENV PATH=/opt/llmbackend/bin:$PATH \
    DATA_DIR=/data \
    HOST=0.0.0.0 \
    PYTHONUNBUFFERED=1
USER llmbackend
WORKDIR /data
VOLUME /data
EXPOSE 8888
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8888/health/live', timeout=4)"]
ENTRYPOINT ["llmbackend"]
CMD ["serve"]
