// Fetches the metrics page as a scraper would.
#pragma once
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace tessera::test {

// The body of the page, by a plain HTTP/1.0 request.
inline std::string get_page(int port) {
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    if (write(connection, request.data(), request.size()) > 0) {
      char part[4096];
      for (ssize_t got; (got = read(connection, part, sizeof part)) > 0;)
        answer.append(part, static_cast<std::size_t>(got));
    }
  }
  close(connection);
  const std::size_t body = answer.find("\r\n\r\n");
  return body == std::string::npos ? "" : answer.substr(body + 4);
}

}  // namespace tessera::test
