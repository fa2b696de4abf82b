/* A server with plain epoll, one thread, non-blocking sockets: answers each connection once and closes it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(int failed, const char *what) {
  if (failed) {
    perror(what);
    exit(1);
  }
}

static void answer(int connection) {
  char request[4096], text[INET6_ADDRSTRLEN] = "?", body[256], all[512];
  ssize_t bytes = read(connection, request, sizeof request);
  if (bytes > 0) {
    struct sockaddr_in6 peer;
    socklen_t length = sizeof peer;
    getpeername(connection, (struct sockaddr *)&peer, &length);
    inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text);
    const char *version = getenv("VERSION");
    snprintf(body, sizeof body, "epoll %s %s\n", version ? version : "1", text);
    int size = snprintf(all, sizeof all, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                        strlen(body), body);
    if (write(connection, all, size) != size) perror("write");
  }
  close(connection);
}

int main(void) {
  int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(getenv("PORT")))};
  check(bind(listener, (struct sockaddr *)&any, sizeof any), "bind");
  check(listen(listener, 16), "listen");
  int queue = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[16];
  check(epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event), "epoll_ctl");
  for (;;) {
    int count = epoll_wait(queue, events, 16, -1);
    for (int i = 0; i < count; i++) {
      if (events[i].data.fd != listener) {
        answer(events[i].data.fd);
        continue;
      }
      int connection;
      while ((connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        event.events = EPOLLIN;
        event.data.fd = connection;
        epoll_ctl(queue, EPOLL_CTL_ADD, connection, &event);
      }
    }
  }
}
