# The caching edge: what Varnish does with requests for media. Read by varnishd, beside a nodes.vcl that gateways.edge.vcl writes.
#
# An object is fetched from the origin once, however many ask: they wait for the one fetch, held requests (blocking reloads, hinted parts)
# too. How long an answer is kept is the origin's to say (Cache-Control); here stands only what no header can. docs/edge.md tells the same
# for other caches.
vcl 4.1;

import std;

include "nodes.vcl";
include "tokens.vcl";

sub vcl_recv {
    if (req.restarts == 0) {
        # Whoever stands before us names the client; Varnish appends who that was.
        set req.http.X-Forwarded-For = regsub(req.http.X-Forwarded-For, ",[^,]*$", "");
        set req.http.Tallylight-Try = "0";
        # Nobody says for himself what his token opens.
        unset req.http.Tallylight-Opens;
        unset req.http.Tallylight-Token;
        unset req.http.Tallylight-Best;
        unset req.http.Tallylight-Settled;
        if (req.url ~ "^/play/[^/]+/") {
            set req.http.Tallylight-Token = regsub(req.url, "^/play/([^/]+)/.*$", "\1");
            set req.url = regsub(req.url, "^/play/[^/]+", "");
            call read_token;
        }
    }
    # Nothing here depends on who asks: one object serves everybody.
    unset req.http.Cookie;
    unset req.http.Authorization;
    unset req.http.If-Range;

    if (req.method != "GET" && req.method != "HEAD" && req.method != "OPTIONS") {
        return (synth(405, "method_not_allowed"));
    }
    if (req.url !~ "^/(live|vod|clips)/[^/]+/.") {
        return (synth(404, "not_found"));
    }
    if (req.method == "OPTIONS") {
        return (synth(204));
    }
    # Queries name other bytes only where they are delivery directives, of playlists; in whatever order.
    if (req.url !~ "^[^?]*\.m3u8\?") {
        set req.url = regsub(req.url, "\?.*$", "");
    } else {
        set req.url = regsuball(req.url, "(?<=[?&])(?!_HLS_(msn|part|skip)=)[^&]*&?", "");
        set req.url = std.querysort(regsub(req.url, "[?&]+$", ""));
    }
    if (req.url ~ "^/live/[^/]+/[^/?]+\.m3u8") {
        # The channel's own playlist: any node may have it.
        call try_node;
    } else if (req.url ~ "^/live/") {
        # Media of one broadcast: its address begins with the name of the node that has it.
        call node_of_address;
    } else {
        call any_node;
    }
    return (hash);
}

sub vcl_hash {
    hash_data(req.url);
    if (req.http.Tallylight-Node) {
        hash_data(req.http.Tallylight-Node);
    }
    return (lookup);
}

sub vcl_backend_fetch {
    unset bereq.http.Tallylight-Try;
    unset bereq.http.Tallylight-Node;
    unset bereq.http.Tallylight-Best;
    unset bereq.http.Tallylight-Settled;
    unset bereq.http.Tallylight-Token;
    unset bereq.http.Tallylight-Opens;
    unset bereq.http.Range;
    # Who checks tokens is given what is for some only; it is kept for all of them.
    call prove;
}

sub vcl_backend_response {
    unset beresp.http.Set-Cookie;
    if (beresp.http.Tallylight-Closed && beresp.ttl > 300s) {
        # What is closed to others today may be open tomorrow.
        set beresp.ttl = 300s;
    }
    if (beresp.http.Cache-Control ~ "no-store" || beresp.status >= 500) {
        # Whoever waited for this shares the answer, rather than asking one after the other; the next who comes asks anew.
        set beresp.ttl = 0.1s;
    }
    if (bereq.url ~ "^/live/") {
        # Live answers are never older than they say.
        set beresp.grace = 0s;
    } else {
        set beresp.grace = 10s;
    }
    set beresp.keep = 0s;
    return (deliver);
}

sub vcl_backend_error {
    set beresp.status = 503;
    set beresp.http.Content-Type = "application/problem+json";
    set beresp.http.Cache-Control = "no-store";
    set beresp.http.Access-Control-Allow-Origin = "*";
    set beresp.http.Retry-After = "1";
    set beresp.body = {"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"unavailable","detail":"The media server is away." }"};
    set beresp.ttl = 0.1s;
    set beresp.grace = 0s;
    return (deliver);
}

sub vcl_deliver {
    if (req.url ~ "^/live/[^/]+/[^/?]+\.m3u8" && resp.http.Tallylight-Standing != "live" && !req.http.Tallylight-Settled) {
        # Not this node's, or no more: the next one's, perhaps. Its encoder may have moved. In the end the best of all answers: what was
        # interrupted may come back here, and who saw the end may see it again.
        if (resp.http.Tallylight-Standing == "interrupted" && req.http.Tallylight-Best !~ "^interrupted ") {
            set req.http.Tallylight-Best = "interrupted " + req.http.Tallylight-Try;
        }
        if (resp.http.Tallylight-Standing == "ended" && !req.http.Tallylight-Best) {
            set req.http.Tallylight-Best = "ended " + req.http.Tallylight-Try;
        }
        call next_node;
        if (req.http.Tallylight-Next) {
            unset req.http.Tallylight-Next;
            return (restart);
        }
        if (req.http.Tallylight-Best) {
            set req.http.Tallylight-Settled = "1";
            set req.http.Tallylight-Best = regsub(req.http.Tallylight-Best, "^.* ", "");
            if (req.http.Tallylight-Best != req.http.Tallylight-Try) {
                set req.http.Tallylight-Try = req.http.Tallylight-Best;
                return (restart);
            }
        }
    }
    unset resp.http.Tallylight-Standing;
    if (resp.http.Tallylight-Closed && resp.http.Tallylight-Closed != req.http.Tallylight-Opens) {
        # The object stays what it is; this client goes without.
        if (!req.http.Tallylight-Token) {
            return (synth(401, "token_required"));
        }
        if (!req.http.Tallylight-Opens) {
            return (synth(401, "token_invalid"));
        }
        return (synth(403, "token_foreign"));
    }
    if (resp.http.Tallylight-Closed) {
        set resp.http.Cache-Control = regsub(resp.http.Cache-Control, "public", "private");
    }
    unset resp.http.Tallylight-Closed;
    if (resp.http.Tallylight-Channel && (resp.status == 200 || resp.status == 304)) {
        # Read by gateways.edge.viewers: the origin sees one request of many.
        std.log("channel:" + resp.http.Tallylight-Channel);
    }
    unset resp.http.Tallylight-Channel;
    unset resp.http.X-Varnish;
    unset resp.http.Via;
    if (obj.hits > 0) {
        set resp.http.X-Cache = "hit";
    } else {
        set resp.http.X-Cache = "miss";
    }
    return (deliver);
}

sub vcl_synth {
    set resp.http.Access-Control-Allow-Origin = "*";
    set resp.http.Cache-Control = "no-store";
    if (resp.status == 204) {
        set resp.http.Access-Control-Allow-Methods = "GET, HEAD, OPTIONS";
        set resp.http.Access-Control-Allow-Headers = "Range, Tallylight-Viewer";
        set resp.http.Access-Control-Max-Age = "86400";
        set resp.body = "";
        return (deliver);
    }
    if (resp.status == 405) {
        set resp.http.Allow = "GET, HEAD, OPTIONS";
    }
    set resp.http.Content-Type = "application/problem+json";
    set resp.body = {"{"type":"about:blank","status":"} + resp.status + {","code":""} + resp.reason + {"" }"};
    return (deliver);
}
