//! Rows of what goes wrong on the way: deadlines, connections, servers, limits, accounts, undecodable and cut replies.

use crate::table::{Asks, Gets, ROW, Row, Ways};

const BUFFERED: &str = "[contracts.c]\nstream = \"buffer\"\n";

pub(crate) const ROWS: &[Row] = &[
    Row {
        class: "timeout",
        what: "a provider that accepts nobody",
        targets: "d b",
        config: "[providers.d]\nkind = \"openai-compatible\"\nbase_url = \"{deaf}/v1\"\nprobes = false\ntimeouts = { connect = \"300ms\" }\n",
        trail: "d timeout:connect reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "timeout",
        what: "no response head",
        config: "[targets.\"a/m\"]\ntimeouts = { header = \"300ms\" }\n",
        faults: &[("a", "hang")],
        trail: "a timeout:header reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "timeout",
        what: "a head and no first token",
        ways: Ways::Streamed,
        config: "[targets.\"a/m\"]\ntimeouts = { first_token = \"300ms\" }\n",
        faults: &[("a", "hang:after-headers")],
        trail: "a timeout:first_token reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "timeout",
        what: "a head and nothing of a whole reply",
        ways: Ways::Whole,
        config: "[targets.\"a/m\"]\ntimeouts = { idle = \"300ms\" }\n",
        faults: &[("a", "hang:after-headers")],
        trail: "a timeout:idle reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "timeout",
        what: "a first token that is late on the only target",
        targets: "a",
        ways: Ways::Streamed,
        config: "[targets.\"a/m\"]\ntimeouts = { first_token = \"300ms\" }\n",
        faults: &[("a", "hang:after-headers,first=1")],
        gets: Gets::Full("a"),
        trail: "a timeout:first_token retry_same; a+same_target ok deliver",
        ..ROW
    },
    Row {
        class: "timeout",
        what: "silence in the middle of what is not yet shown",
        route: "contract = \"c\"",
        config: "[targets.\"a/m\"]\ntimeouts = { idle = \"300ms\" }\n[contracts.c]\nstream = \"buffer\"\n",
        faults: &[("a", "stall:after=4")],
        trail: "a timeout:idle reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "timeout",
        what: "an attempt as a whole",
        route: "contract = \"c\"",
        config: "[targets.\"a/m\"]\ntimeouts = { total = \"500ms\" }\n[contracts.c]\nstream = \"buffer\"\n",
        faults: &[("a", "drip:gap=100ms")],
        trail: "a timeout:total reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "timeout",
        what: "the call as a whole",
        route: "tier = \"t\"",
        config: "[tiers.t]\ndeadline = \"1s\"\n",
        faults: &[("a", "hang"), ("b", "hang")],
        gets: Gets::Error("timeout"),
        trail: "a timeout:total give_up",
        ..ROW
    },
    Row {
        class: "connection",
        what: "refused",
        faults: &[("a", "refuse-connections")],
        trail: "a connection:refused reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "connection",
        what: "reset, and nobody else to ask",
        targets: "a",
        faults: &[("a", "reset:before-headers,first=1")],
        gets: Gets::Full("a"),
        trail: "a connection:reset retry_same; a+same_target ok deliver",
        ..ROW
    },
    Row {
        class: "connection",
        what: "nobody can be reached",
        faults: &[("a", "refuse-connections"), ("b", "refuse-connections")],
        gets: Gets::Error("connection"),
        trail: "a connection:refused reroute; b connection:refused retry_same; b+same_target connection:refused give_up",
        ..ROW
    },
    Row {
        class: "server_error",
        what: "a lone 500 is worth one retry",
        faults: &[("a", "500:first=1")],
        gets: Gets::Full("a"),
        trail: "a server_error retry_same; a+same_target ok deliver",
        ..ROW
    },
    Row {
        class: "server_error",
        what: "a 500 that stays",
        faults: &[("a", "500")],
        trail: "a server_error retry_same; a+same_target server_error reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "server_error",
        what: "an error inside a 200",
        faults: &[("a", "error-in-200"), ("b", "error-in-200")],
        gets: Gets::Error("server_error"),
        trail: "a server_error retry_same; a+same_target server_error reroute; b server_error give_up",
        ..ROW
    },
    Row {
        class: "overloaded",
        what: "a busy provider is left at once",
        faults: &[("a", "529")],
        trail: "a overloaded reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "overloaded",
        what: "everybody is busy",
        faults: &[("a", "503"), ("b", "503")],
        gets: Gets::Error("overloaded"),
        trail: "a overloaded reroute; b overloaded retry_same; b+same_target overloaded give_up",
        ..ROW
    },
    Row {
        class: "overloaded",
        what: "an error event before any output",
        ways: Ways::Streamed,
        faults: &[("a", "error-event:after=0")],
        trail: "a overloaded reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "rate_limited",
        what: "somebody else can answer now",
        faults: &[("a", "429:retry-after=5")],
        trail: "a rate_limited reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "rate_limited",
        what: "a short schedule is waited for where nobody else is",
        targets: "a",
        faults: &[("a", "429:retry-after=1,first=1")],
        gets: Gets::Full("a"),
        trail: "a rate_limited wait; a+after_wait ok deliver",
        ..ROW
    },
    Row {
        class: "rate_limited",
        what: "everybody's schedule is longer than anybody would wait",
        faults: &[("a", "429:retry-after=10m"), ("b", "429:retry-after=10m")],
        gets: Gets::Error("rate_limit_exceeded"),
        trail: "a rate_limited reroute; b rate_limited give_up",
        ..ROW
    },
    Row {
        class: "quota_exhausted",
        what: "an account out of money",
        faults: &[("a", "quota")],
        trail: "a quota_exhausted reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "quota_exhausted",
        what: "every account out of money is no fault of the caller's",
        faults: &[("a", "quota"), ("b", "quota")],
        gets: Gets::Error("quota_exhausted"),
        trail: "a quota_exhausted reroute; b quota_exhausted give_up",
        ..ROW
    },
    Row {
        class: "auth",
        what: "a key that is rejected",
        faults: &[("a", "auth")],
        trail: "a auth reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "auth",
        what: "every key is rejected, and the caller's own is fine",
        faults: &[("a", "auth"), ("b", "auth")],
        gets: Gets::Error("auth"),
        trail: "a auth reroute; b auth give_up",
        ..ROW
    },
    Row {
        class: "malformed_reply",
        what: "a reply that cannot be decoded",
        faults: &[("a", "malformed-chunk:after=0")],
        trail: "a malformed_reply reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "malformed_reply",
        what: "nobody's can be decoded",
        route: "contract = \"c\"",
        config: BUFFERED,
        faults: &[("a", "malformed-chunk:after=3"), ("b", "malformed-chunk:after=3")],
        gets: Gets::Error("malformed_reply"),
        trail: "a malformed_reply reroute; b malformed_reply give_up",
        ..ROW
    },
    Row {
        class: "stream_interrupted",
        what: "cut after output that was shown",
        ways: Ways::Streamed,
        faults: &[("a", "cut:after=5,how=close")],
        gets: Gets::Interrupted("stream_interrupted"),
        trail: "a stream_interrupted interrupt",
        ..ROW
    },
    Row {
        class: "stream_interrupted",
        what: "an end without the terminal event is no end",
        ways: Ways::Streamed,
        faults: &[("a", "no-terminal")],
        gets: Gets::Interrupted("stream_interrupted"),
        trail: "a stream_interrupted interrupt",
        ..ROW
    },
    Row {
        class: "stream_interrupted",
        what: "silence after output that was shown",
        ways: Ways::Streamed,
        config: "[targets.\"a/m\"]\ntimeouts = { idle = \"300ms\" }\n",
        faults: &[("a", "stall:after=4")],
        gets: Gets::Interrupted("timeout"),
        trail: "a timeout:idle interrupt",
        ..ROW
    },
    Row {
        class: "stream_interrupted",
        what: "cut while the contract buffers",
        ways: Ways::Streamed,
        route: "contract = \"c\"",
        config: BUFFERED,
        faults: &[("a", "cut:after=5,how=close")],
        trail: "a stream_interrupted reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "stream_interrupted",
        what: "cut while the first tokens are held back",
        ways: Ways::Streamed,
        route: "contract = \"c\"",
        config: "[contracts.c]\nstream = \"hold\"\nhold = { tokens = 30, after = \"10s\" }\n",
        faults: &[("a", "cut:after=5,how=close")],
        trail: "a stream_interrupted reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "stream_interrupted",
        what: "a whole reply of which half came",
        ways: Ways::Whole,
        faults: &[("a", "cut:after=5,how=close")],
        trail: "a connection:reset retry_same; a+same_target connection:reset reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "stream_interrupted",
        what: "cut inside a tool call, of which nothing is released",
        ways: Ways::Streamed,
        asks: Asks::Tools,
        targets: "a",
        faults: &[("a", "cut:inside-tool,how=close")],
        gets: Gets::Error("stream_interrupted"),
        trail: "a stream_interrupted give_up",
        hides: "refund_order",
        ..ROW
    },
];
