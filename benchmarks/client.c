/*
 * The load client: many WebSockets from one process on one core, with epoll and no library.
 *
 *     client MODE --ports 8000[,8001] --path /ws/ [--option value]...
 *
 * MODE
 *   echo       each of --members sockets keeps --window frames in flight; counts the answers
 *   broadcast  sends one frame, from the members in turn, whenever fewer than --window broadcasts are on their way;
 *              counts the deliveries at all members
 *   latency    sends --rate broadcasts a second, whatever comes back (open loop); measures each delivery from the
 *              moment it was due
 *   handshake  --lanes sockets at a time: open, wait for the greeting, close, again; counts the greetings
 *   listen     counts the frames that --members sockets are sent by another process, and measures the latency of each
 *              from the time in it
 *   hold       opens --members sockets, and keeps them until its standard input ends
 *
 * With --room N, "@" in the path is the number of the room, which N sockets share; of them, one sends, in echo. With
 * --cookies FILE each socket has a line of the file as its cookie, in turn.
 *
 * Sockets are opened --lanes at a time, and closed so, too. It prints one line of JSON while they are still open. Times are seconds, but latency_ms; CPU figures are shares of one core over the
 * measured window: its own, and those of the processes in --watch (their ids).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum mode { ECHO, BROADCAST, LATENCY, HANDSHAKE, LISTEN, HOLD };
enum state { UNUSED, CONNECTING, UPGRADING, GREETING, OPEN, CLOSING, ENDED };

struct conn {
    int fd;
    enum state state;
    bool stuck;        /* reads nothing once it is open */
    int owed;          /* frames to send after the frames at hand are parsed */
    uint64_t expected; /* deliveries that were sent while it was open */
    uint64_t received;
    double deadline; /* of the handshake or the closing */
    char *in;        /* the beginning of a frame whose end has not come yet */
    size_t in_len;
    char *out; /* what the kernel has not taken yet */
    size_t out_len;
};

static const char *names[] = {"echo", "broadcast", "latency", "handshake", "listen", "hold"};
static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};
static const int EVENTS = 1024;
static const size_t BUFFER = 1 << 18;

/* Options, with their defaults. */
static enum mode mode;
static int ports[8], port_count;
static const char *path = "/", *cookie = "", *hello = "", *greeting = "connection_established";
static const char *frame = "{\"type\": \"ping\"}"; /* "@" in it stands for the payload */
static const char *expect = "pong";                /* what a counted frame contains */
static int engineio;                               /* answer Engine.IO's "2" with "3" */
static char **cookies;
static int cookie_count;
static int members = 1, room = 1, stuck, lanes = 16, window = 1, size = 64;
static double rate = 20, seconds = 2, warmup = 0.5, timeout = 60;
static int watch[8], watch_count;

static int epoll;
static struct conn *conns;
static int conn_count, opened, opening, closing, ready, readers, failed;
static uint64_t sent, expected, received, lost, greeted;
static double last_delivery;
static float *samples; /* milliseconds */
static size_t sample_count, sample_room;
static char *buffer;

static struct { char name[32]; long count; } errors[32];
static char first_error[200];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void *grow(void *memory, size_t bytes)
{
    memory = realloc(memory, bytes);
    if (!memory) {
        perror("client");
        exit(1);
    }
    return memory;
}

static void count_error(const char *name)
{
    for (int i = 0; i < 32; i++) {
        if (!errors[i].count)
            snprintf(errors[i].name, sizeof errors[i].name, "%s", name);
        if (!strcmp(errors[i].name, name)) {
            errors[i].count++;
            return;
        }
    }
}

static void keep_first_error(const char *text, size_t length)
{
    if (first_error[0])
        return;
    size_t n = 0;
    for (size_t i = 0; i < length && n < sizeof first_error - 2; i++) {
        if (text[i] == '"' || text[i] == '\\')
            first_error[n++] = '\\';
        first_error[n++] = (unsigned char)text[i] < 32 || (unsigned char)text[i] > 126 ? ' ' : text[i];
    }
    first_error[n] = 0;
}

/* Connections */

static void interest(struct conn *c, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll, operation, c->fd, &event);
}

/* End the connection; `error` is NULL when that was the plan. */
static void end(struct conn *c, const char *error)
{
    if (c->state == ENDED)
        return;
    if (error) {
        count_error(error);
        failed++;
    }
    if (c->state < OPEN)
        opening--;
    if (c->state == CLOSING)
        closing--;
    if (c->state == OPEN) {
        ready--;
        if (!c->stuck) {
            readers--;
            lost += c->expected - c->received;
            expected -= c->expected - c->received;
        }
    }
    c->state = ENDED;
    close(c->fd);
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
    c->in_len = c->out_len = 0;
}

static void write_bytes(struct conn *c, const char *data, size_t length)
{
    if (!c->out_len) {
        ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            end(c, "send");
            return;
        }
        if (n > 0) {
            data += n;
            length -= n;
        }
        if (!length)
            return;
        interest(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
    c->out = grow(c->out, c->out_len + length);
    memcpy(c->out + c->out_len, data, length);
    c->out_len += length;
}

static void write_rest(struct conn *c)
{
    ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        end(c, "send");
        return;
    }
    if (n > 0) {
        memmove(c->out, c->out + n, c->out_len - n);
        c->out_len -= n;
    }
    if (!c->out_len)
        interest(c, EPOLLIN, EPOLL_CTL_MOD);
}

/* Write a masked frame to `to`, which has room for 8 bytes more than the payload; return its length. */
static size_t encode(char *to, int opcode, const char *payload, size_t length)
{
    size_t n = 0;
    to[n++] = 0x80 | opcode;
    if (length < 126) {
        to[n++] = 0x80 | length;
    } else {
        to[n++] = 0x80 | 126;
        to[n++] = length >> 8;
        to[n++] = length;
    }
    memcpy(to + n, MASK, 4);
    n += 4;
    for (size_t i = 0; i < length; i++)
        to[n + i] = payload[i] ^ MASK[i & 3];
    return n + length;
}

static void write_frame(struct conn *c, int opcode, const char *payload, size_t length)
{
    char bytes[140];
    write_bytes(c, bytes, encode(bytes, opcode, payload, length > 125 ? 125 : length));
}

/* Return the frame of the options; the payload is "~", the time in hexadecimal nanoseconds, and filling. */
static size_t make_frame(char *to, double due)
{
    char text[66000];
    size_t length;
    const char *at = strchr(frame, '@');
    if (at) {
        length = at - frame;
        memcpy(text, frame, length);
        int stamp = sprintf(text + length, "~%016llx", (unsigned long long)(due * 1e9));
        if (size > stamp)
            memset(text + length + stamp, 'x', size - stamp);
        length += size > stamp ? size : stamp;
        strcpy(text + length, at + 1);
        length += strlen(at + 1);
    } else {
        length = strlen(frame);
        memcpy(text, frame, length);
    }
    return encode(to, 1, text, length);
}

static void write_frames(struct conn *c, int count)
{
    static char one[66100], many[1 << 16];
    size_t length = make_frame(one, now()), total = 0;
    for (int i = 0; i < count; i++) {
        if (total + length > sizeof many) {
            write_bytes(c, many, total);
            total = 0;
        }
        memcpy(many + total, one, length);
        total += length;
    }
    write_bytes(c, many, total);
    sent += count;
}

static void open_socket(struct conn *c, bool is_stuck)
{
    *c = (struct conn){.state = CONNECTING, .stuck = is_stuck, .deadline = now() + timeout};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    opening++;
    opened++;
    if (c->fd < 0) {
        end(c, "socket");
        return;
    }
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (is_stuck) {
        /* Ethernet's segments: with those of the loopback the kernel would buffer megabytes for this socket. */
        int segment = 1400, bytes = 4096;
        setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    /* Several addresses of our own, because one has only 28,000 ports. */
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + opened % 8)};
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    bind(c->fd, (struct sockaddr *)&own, sizeof own);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    server.sin_port = htons(ports[opened % port_count]);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        end(c, "connect");
        return;
    }
    interest(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void upgrade(struct conn *c)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        end(c, error == ECONNREFUSED ? "refused" : "connect");
        return;
    }
    struct sockaddr_in server;
    length = sizeof server;
    getpeername(c->fd, (struct sockaddr *)&server, &length);
    int port = ntohs(server.sin_port);
    char request[2048], room_path[256];
    const char *at = strchr(path, '@'), *own = cookie_count ? cookies[(c - conns) % cookie_count] : cookie;
    snprintf(room_path, sizeof room_path, at ? "%.*s%d%s" : "%.*s", at ? (int)(at - path) : (int)strlen(path), path,
             (int)(c - conns) / room, at ? at + 1 : "");
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:%d\r\n"
                     "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                     room_path, port, port, *own ? "Cookie: " : "", own, *own ? "\r\n" : "");
    c->state = UPGRADING;
    interest(c, EPOLLIN, EPOLL_CTL_MOD);
    write_bytes(c, request, n);
}

/* Begin to close: the server answers, and ends the connection. */
static void close_socket(struct conn *c)
{
    ready--;
    closing++;
    c->state = CLOSING;
    c->deadline = now() + timeout;
    write_frame(c, 8, "\x03\xe8", 2);
}

static void became_ready(struct conn *c)
{
    c->state = OPEN;
    opening--;
    ready++;
    greeted++;
    if (mode == HANDSHAKE) {
        close_socket(c);
    } else if (c->stuck) {
        epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
    } else {
        readers++;
    }
}

static void delivered(struct conn *c, const char *text, size_t length)
{
    received++;
    c->received++;
    last_delivery = now();
    if (mode == ECHO) {
        c->owed += (c - conns) % room == 0;
    } else if (mode == LATENCY || mode == LISTEN) {
        const char *stamp = memchr(text, '~', length);
        if (stamp && text + length - stamp > 17) {
            char digits[17] = {0};
            memcpy(digits, stamp + 1, 16);
            if (sample_count == sample_room) {
                sample_room = sample_room ? 2 * sample_room : 1 << 16;
                samples = grow(samples, sample_room * sizeof *samples);
            }
            samples[sample_count++] = (last_delivery - strtoull(digits, NULL, 16) / 1e9) * 1e3;
        }
    }
}

static void on_frame(struct conn *c, int opcode, const char *text, size_t length)
{
    if (opcode == 9) {
        write_frame(c, 10, text, length);
    } else if (opcode == 8) {
        if (c->state == CLOSING)
            return;
        char name[32];
        snprintf(name, sizeof name, "closed %d", length < 2 ? 1005 : (unsigned char)text[0] << 8 | (unsigned char)text[1]);
        end(c, name);
    } else if (opcode == 1) {
        if (c->state == GREETING && memmem(text, length, greeting, strlen(greeting)))
            became_ready(c);
        else if (engineio && length == 1 && *text == '2')
            write_frame(c, 1, "3", 1);
        else if (c->state == OPEN && memmem(text, length, expect, strlen(expect)))
            delivered(c, text, length);
        else if (memmem(text, length, "\"error\"", 7)) {
            count_error("error frame");
            keep_first_error(text, length);
        }
    } else if (opcode != 10) {
        end(c, "unexpected frame");
    }
}

/* Handle the bytes and return how many of them were whole. */
static size_t parse(struct conn *c, const char *data, size_t length)
{
    size_t at = 0;
    if (c->state == UPGRADING) {
        const char *stop = memmem(data, length, "\r\n\r\n", 4);
        if (!stop)
            return 0;
        if (length < 12 || memcmp(data + 9, "101", 3)) {
            char name[32];
            snprintf(name, sizeof name, "HTTP %.3s", length < 12 ? "?" : data + 9);
            end(c, name);
            return length;
        }
        at = stop + 4 - data;
        c->state = GREETING;
        if (*hello)
            write_frame(c, 1, hello, strlen(hello));
    }
    while (c->state != ENDED && length - at >= 2) {
        const unsigned char *head = (const unsigned char *)data + at;
        size_t size_of_head = 2, payload = head[1] & 127;
        if (payload == 126) {
            size_of_head = 4;
            if (length - at < 4)
                break;
            payload = (size_t)head[2] << 8 | head[3];
        } else if (payload == 127) {
            end(c, "frame over 64 KiB");
            break;
        }
        if (length - at < size_of_head + payload)
            break;
        on_frame(c, head[0] & 15, data + at + size_of_head, payload);
        at += size_of_head + payload;
    }
    return at;
}

static void readable(struct conn *c)
{
    memcpy(buffer, c->in ? c->in : "", c->in_len);
    ssize_t n = recv(c->fd, buffer + c->in_len, BUFFER - c->in_len, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            end(c, c->state == CLOSING ? NULL : n == 0 ? "ended by the server" : "reset by the server");
        return;
    }
    size_t length = c->in_len + n, used = parse(c, buffer, length);
    if (c->state == ENDED)
        return;
    c->in_len = length - used;
    if (c->in_len) {
        c->in = grow(c->in, c->in_len);
        memcpy(c->in, buffer + used, c->in_len);
    }
    if (c->owed) {
        int owed = c->owed;
        c->owed = 0;
        write_frames(c, owed);
    }
}

/* Wait for events, `wait` seconds at most, and handle them. Returns false when the descriptor `extra` is readable. */
static bool turn(double wait, int extra)
{
    struct epoll_event events[EVENTS];
    bool quiet = true;
    int n = epoll_wait(epoll, events, EVENTS, wait <= 0 ? 0 : (int)(wait * 1000) + 1);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (!c) {
            quiet = extra < 0;
            continue;
        }
        if (c->state == CONNECTING) {
            upgrade(c);
            continue;
        }
        if (c->state != ENDED && c->out_len && events[i].events & EPOLLOUT)
            write_rest(c);
        if (c->state != ENDED && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            readable(c);
    }
    return quiet;
}

static void end_overdue(void)
{
    double time = now();
    for (int i = 0; i < conn_count; i++)
        if ((conns[i].state < OPEN || conns[i].state == CLOSING) && conns[i].state != UNUSED &&
            conns[i].deadline < time)
            end(&conns[i], "timeout");
}

/* Processor time, in seconds, of this process (0) or of a watched one. */
static double cpu(int pid)
{
    if (!pid) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    }
    char name[64], line[1024] = "";
    unsigned long user = 0, kernel = 0;
    snprintf(name, sizeof name, "/proc/%d/stat", pid);
    FILE *file = fopen(name, "r");
    if (file) {
        if (fgets(line, sizeof line, file) && strrchr(line, ')'))
            sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
        fclose(file);
    }
    return (double)(user + kernel) / sysconf(_SC_CLK_TCK);
}

static double start_time, start_cpu[9], measured, share[9];
static uint64_t start_count;

static void start_window(uint64_t count)
{
    for (int i = 0; i <= watch_count; i++)
        start_cpu[i] = cpu(i ? watch[i - 1] : 0);
    start_count = count;
    start_time = now();
}

static uint64_t end_window(uint64_t count)
{
    measured = now() - start_time;
    for (int i = 0; i <= watch_count; i++)
        share[i] = (cpu(i ? watch[i - 1] : 0) - start_cpu[i]) / measured;
    return count - start_count;
}

/* The modes */

static double connect_all(void)
{
    double start = now(), checked = start;
    while (opened < conn_count || opening) {
        while (opened < conn_count && opening < lanes) {
            int index = opened;
            open_socket(&conns[index], index >= members);
        }
        turn(0.1, -1);
        if (now() - checked > 0.2) {
            checked = now();
            end_overdue();
        }
    }
    return now() - start;
}

/* Close what is open as it was opened, --lanes at a time, for 8 seconds at most. */
static void close_all(void)
{
    double stop = now() + 8;
    for (int i = 0; i < conn_count; i++) {
        while (closing >= lanes && now() < stop)
            turn(0.05, -1);
        if (conns[i].state == OPEN && !conns[i].stuck)
            close_socket(&conns[i]);
    }
    while (closing && now() < stop)
        turn(0.05, -1);
}

static uint64_t run_echo(void)
{
    double start = now();
    bool measuring = false;
    for (int i = 0; mode == ECHO && i < conn_count; i += room)
        if (conns[i].state == OPEN)
            write_frames(&conns[i], window);
    while (now() < start + warmup + seconds) {
        if (!measuring && now() >= start + warmup) {
            measuring = true;
            sample_count = 0;
            start_window(received);
        }
        turn(0.05, -1);
    }
    return end_window(received);
}

/* Send one broadcast from the next member that is open. */
static void broadcast(double due)
{
    static char bytes[66100];
    static int next;
    for (int i = 0; i < members; i++) {
        struct conn *c = &conns[next++ % members];
        if (c->state != OPEN)
            continue;
        sent++;
        expected += readers;
        for (int j = 0; j < members; j++)
            conns[j].expected += conns[j].state == OPEN;
        write_bytes(c, bytes, make_frame(bytes, due));
        return;
    }
}

/* What is still on its way has given up hope: count it as lost. */
static void give_up(void)
{
    lost += expected - received;
    expected = received;
    for (int j = 0; j < members; j++)
        conns[j].expected = conns[j].received;
}

static void drain(double longest)
{
    double stop = now() + longest;
    last_delivery = now();
    while (received < expected && readers && now() < stop && now() < last_delivery + 2)
        turn(0.05, -1);
    give_up();
}

static uint64_t run_broadcast(void)
{
    double start = now();
    bool measuring = false;
    last_delivery = start;
    while (readers && now() < start + warmup + seconds) {
        if (!measuring && now() >= start + warmup) {
            measuring = true;
            start_window(received);
        }
        if (now() > last_delivery + 3) {
            give_up();
            last_delivery = now();
        }
        /* Signed: what give_up() counted as lost may still come. */
        while (readers && (int64_t)(expected - received) <= (int64_t)(window - 1) * readers)
            broadcast(now());
        turn(0.05, -1);
    }
    uint64_t count = end_window(received);
    drain(10);
    return count;
}

static uint64_t run_latency(void)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    double start = now() + 0.05, due = start;
    struct itimerspec every = {.it_value = {.tv_sec = (time_t)due, .tv_nsec = (long)((due - (time_t)due) * 1e9)}};
    every.it_interval.tv_sec = (time_t)(1 / rate);
    every.it_interval.tv_nsec = (long)((1 / rate - (time_t)(1 / rate)) * 1e9);
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &every, NULL);
    bool measuring = false;
    while (readers && due < start + warmup + seconds) {
        if (!turn(0.1, timer)) {
            uint64_t ticks;
            if (read(timer, &ticks, sizeof ticks) < 0)
                ticks = 0;
        }
        for (; due <= now() && due < start + warmup + seconds; due += 1 / rate) {
            if (!measuring && due >= start + warmup) {
                measuring = true;
                sample_count = 0;
                start_window(received);
            }
            broadcast(due);
        }
    }
    uint64_t count = end_window(received);
    close(timer);
    drain(10);
    return count;
}

static uint64_t run_handshake(void)
{
    double start = now(), stop = start + warmup + seconds, checked = start;
    bool measuring = false;
    while (now() < stop) {
        if (!measuring && now() >= start + warmup) {
            measuring = true;
            start_window(greeted);
        }
        for (int i = 0; i < conn_count; i++)
            if (conns[i].state == UNUSED || conns[i].state == ENDED)
                open_socket(&conns[i], false);
        turn(0.05, -1);
        if (now() - checked > 0.2) {
            checked = now();
            end_overdue();
        }
    }
    return end_window(greeted);
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print(uint64_t count, double connecting)
{
    printf("{\"mode\": \"%s\", \"connected\": %d, \"connecting_seconds\": %.4f, \"failed\": %d, \"seconds\": %.4f, "
           "\"count\": %llu, \"per_second\": %.1f, \"sent\": %llu, \"lost\": %lld, \"client_cpu\": %.4f, \"watched_cpu\": [",
           names[mode], ready, connecting, failed, measured, (unsigned long long)count,
           measured > 0 ? count / measured : 0, (unsigned long long)sent, (long long)lost, share[0]);
    for (int i = 1; i <= watch_count; i++)
        printf("%s%.4f", i > 1 ? ", " : "", share[i]);
    printf("], \"errors\": {");
    for (int i = 0; i < 32 && errors[i].count; i++)
        printf("%s\"%s\": %ld", i ? ", " : "", errors[i].name, errors[i].count);
    printf("}, \"first_error\": \"%s\"", first_error);
    if (sample_count) {
        qsort(samples, sample_count, sizeof *samples, ascending);
        printf(", \"latency_ms\": {\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f, \"samples\": %zu}", samples[sample_count / 2],
               samples[sample_count * 99 / 100], samples[sample_count - 1], sample_count);
    }
    puts("}");
    fflush(stdout);
}

static int numbers(char *text, int *to)
{
    int n = 0;
    for (char *part = strtok(text, ","); part && n < 8; part = strtok(NULL, ","))
        to[n++] = atoi(part);
    return n;
}

static void read_cookies(const char *name)
{
    char line[512];
    FILE *file = fopen(name, "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        cookies = grow(cookies, (cookie_count + 1) * sizeof *cookies);
        cookies[cookie_count++] = strdup(line);
    }
    if (file)
        fclose(file);
}

static void read_options(int argc, char **argv)
{
    for (int i = 2; i + 1 < argc; i += 2) {
        char *name = argv[i] + 2, *value = argv[i + 1];
#define IS(option) !strcmp(name, option)
        if (IS("ports")) port_count = numbers(value, ports);
        else if (IS("watch")) watch_count = numbers(value, watch);
        else if (IS("path")) path = value;
        else if (IS("cookie")) cookie = value;
        else if (IS("cookies")) read_cookies(value);
        else if (IS("room")) room = atoi(value);
        else if (IS("hello")) hello = value;
        else if (IS("greeting")) greeting = value;
        else if (IS("frame")) frame = value;
        else if (IS("expect")) expect = value;
        else if (IS("engineio")) engineio = atoi(value);
        else if (IS("members")) members = atoi(value);
        else if (IS("stuck")) stuck = atoi(value);
        else if (IS("lanes")) lanes = atoi(value);
        else if (IS("window")) window = atoi(value);
        else if (IS("size")) size = atoi(value);
        else if (IS("rate")) rate = atof(value);
        else if (IS("seconds")) seconds = atof(value);
        else if (IS("warmup")) warmup = atof(value);
        else if (IS("timeout")) timeout = atof(value);
        else {
            fprintf(stderr, "client: no option --%s\n", name);
            exit(2);
        }
    }
    if (!port_count || size > 60000) {
        fputs("client: --ports is missing, or --size is over 60000\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    while (argc > 1 && mode <= HOLD && strcmp(argv[1], names[mode]))
        mode++;
    if (argc < 2 || mode > HOLD) {
        fputs("client: echo, broadcast, latency, handshake, listen or hold\n", stderr);
        return 2;
    }
    read_options(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    epoll = epoll_create1(0);
    buffer = grow(NULL, BUFFER);
    conn_count = mode == HANDSHAKE ? lanes : members + stuck;
    conns = calloc(conn_count, sizeof *conns);

    double connecting = mode == HANDSHAKE ? 0 : connect_all();
    uint64_t count = mode == ECHO || mode == LISTEN ? run_echo()
                     : mode == BROADCAST            ? run_broadcast()
                     : mode == LATENCY              ? run_latency()
                     : mode == HANDSHAKE            ? run_handshake()
                                                    : (uint64_t)ready;
    print(count, connecting);
    if (mode == HOLD) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
        epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
        while (turn(1, STDIN_FILENO))
            ;
    }
    close_all();
    return 0;
}
