# In place of grafana/grafana, which Debian has no package of: same user, port, and wget for the health check. It serves
# what is mounted where Grafana reads it, and writes where Grafana writes.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends wget
RUN mkdir -p /srv/api /var/lib/grafana && touch /srv/api/health && ln -s /etc/grafana /srv/grafana
USER 472
EXPOSE 3000
CMD ["sh", "-c", "touch /var/lib/grafana/grafana.db && exec python3 -m http.server --directory /srv 3000"]
