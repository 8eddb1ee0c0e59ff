# Airflow with nightbatch, for docker-compose.yaml. Exactly the versions of uv.lock.
# Held against the project by tests/test_deploy_files.py. The commands of its first stage were run outside a container;
# the image has not been built.

FROM python:3.12.12-slim-bookworm AS build

RUN pip install --no-cache-dir 'uv>=0.9,<1'
ENV UV_PROJECT_ENVIRONMENT=/opt/nightbatch/.venv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY include/nightbatch include/nightbatch
RUN uv sync --locked --no-dev --extra all --group celery --no-editable

FROM python:3.12.12-slim-bookworm

RUN groupadd --gid 50000 airflow \
 && useradd --uid 50000 --gid airflow --create-home --home-dir /opt/airflow airflow \
 && mkdir -p /opt/airflow/logs && chown airflow:airflow /opt/airflow/logs
COPY --from=build /opt/nightbatch/.venv /opt/nightbatch/.venv
COPY dags /opt/nightbatch/dags
COPY plugins /opt/nightbatch/plugins
COPY include/jobs /opt/nightbatch/include/jobs
COPY include/prompts /opt/nightbatch/include/prompts
ENV PATH=/opt/nightbatch/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/nightbatch/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/nightbatch/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
WORKDIR /opt/nightbatch
USER airflow
EXPOSE 8080
CMD ["airflow", "version"]
