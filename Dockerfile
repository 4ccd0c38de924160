FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w ${VERSION:+-X singlegate/internal/cli.version=$VERSION}" -o /singlegate .

# The image holds the binary and the public CAs: no shell, no package manager.
# The numeric user is "nobody"; ports below 1024 work in containers since Docker 20.10
# (net.ipv4.ip_unprivileged_port_start=0), elsewhere use higher ones.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /singlegate /singlegate
USER 65534:65534
EXPOSE 443 80
# The admin address of the config must be 127.0.0.1:9180; health needs no token.
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["/singlegate", "health"]
ENTRYPOINT ["/singlegate"]
CMD ["run", "--config", "/etc/singlegate/singlegate.yaml"]
