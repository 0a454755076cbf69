# docker build -t lenet-selu . && docker run -v lenet-runs:/lenet-selu/runs lenet-selu
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home lenet \
    && install -d -o lenet /lenet-selu /lenet-selu/runs
WORKDIR /lenet-selu
USER lenet
COPY --chown=lenet Makefile requirements.lock ./
RUN make .venv/requirements.lock && rm -rf ~/.cache/pip
COPY --chown=lenet . .
RUN make .venv/installed
CMD ["make", "train"]
