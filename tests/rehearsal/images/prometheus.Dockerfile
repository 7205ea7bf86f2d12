# Debian's Prometheus, laid out as in prom/prometheus: same user, paths, entry point, and wget for the health check.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus wget
RUN mkdir /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
WORKDIR /prometheus
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]
