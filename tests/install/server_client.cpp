// A C++ program with libcb: a server and a client on one loop. Option structs are zeroed by {} and told their size;
// handles live in std::unique_ptr; captured state travels by the user pointer.
#include <cb.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

namespace {

template <typename T> T sized() {
    T t{};
    t.size = sizeof t;
    return t;
}

template <typename T, void (*F)(T *)> struct Deleter {
    void operator()(T *p) const { F(p); }
};
template <typename T, void (*F)(T *)> using Handle = std::unique_ptr<T, Deleter<T, F>>;
using Loop = Handle<cb_loop, cb_loop_free>;
using Server = Handle<cb_http_server, cb_http_server_free>;
using Client = Handle<cb_http_client, cb_http_client_free>;

struct Reply {
    cb_loop *loop = nullptr;
    std::string body;
    int status = 0;
    int rc = CB_EAGAIN;
};

int on_request(cb_exchange *x, void *user) {
    const auto *text = static_cast<const std::string *>(user);
    return cb_exchange_send_text(x, 200, text->c_str());
}

std::int64_t on_body(cb_exchange *, cb_slice data, void *user) {
    static_cast<Reply *>(user)->body.append(reinterpret_cast<const char *>(data.base), data.len);
    return static_cast<std::int64_t>(data.len);
}

void on_close(cb_exchange *x, int rc, void *user) {
    auto *reply = static_cast<Reply *>(user);
    reply->status = cb_exchange_status(x);
    reply->rc = rc;
    cb_loop_stop(reply->loop);
}

int fail(const char *what, int rc) {
    std::fprintf(stderr, "%s: %s: %s\n", what, cb_strerror(rc), cb_last_error());
    return 1;
}

} // namespace

int main() {
    std::string text = "hello from C++\n";
    auto server_ops = sized<cb_exchange_ops>(), client_ops = sized<cb_exchange_ops>();
    server_ops.on_end = on_request;
    client_ops.on_body = on_body;
    client_ops.on_close = on_close;

    cb_loop *raw_loop = nullptr;
    if (int rc = cb_loop_new(&raw_loop, nullptr); rc < 0) return fail("loop", rc);
    Loop loop(raw_loop);

    auto so = sized<cb_http_server_opts>();
    so.listen = "127.0.0.1:0";
    so.ops = &server_ops;
    so.user = &text;
    cb_http_server *raw_server = nullptr;
    if (int rc = cb_http_server_new(&raw_server, loop.get(), &so); rc < 0) return fail("server", rc);
    Server server(raw_server);

    cb_http_client *raw_client = nullptr;
    if (int rc = cb_http_client_new(&raw_client, loop.get(), nullptr); rc < 0) return fail("client", rc);
    Client client(raw_client);

    const std::string url = std::string("http://") + cb_http_server_address(server.get()) + "/";
    for (std::uint32_t version : {CB_HTTP_1, CB_HTTP_2}) {
        Reply reply;
        reply.loop = loop.get();
        auto request = sized<cb_request>();
        request.url = url.c_str();
        request.versions = version;
        cb_exchange *x = nullptr;
        if (int rc = cb_http_request(&x, client.get(), &request, &client_ops, &reply); rc < 0)
            return fail("request", rc);
        if (int rc = cb_loop_run(loop.get()); rc < 0) return fail("run", rc);
        if (reply.rc < 0 || reply.status != 200 || reply.body != text) return fail("reply", reply.rc);
    }
    auto stats = sized<cb_http_server_stats>();
    if (int rc = cb_http_server_stats_get(server.get(), &stats); rc < 0) return fail("statistics", rc);
    std::printf("%llu exchanges\n", static_cast<unsigned long long>(stats.exchanges_total));
    return stats.exchanges_total == 2 ? 0 : 1;
}
