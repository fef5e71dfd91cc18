//! Rows of what may be spent, where a request may go, and what comes when every path is spent.

use crate::table::{Asks, Gets, ROW, Row, Ways};

macro_rules! stored {
    () => {
        "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n"
    };
}

/// A context window for each of `a` and `b`.
macro_rules! windows {
    ($a:literal, $b:literal) => {
        concat!("[targets.\"a/m\"]\ncontext_window = ", $a, "\n[targets.\"b/m\"]\ncontext_window = ", $b, "\n")
    };
}

/// Prices of `a` and `b` in dollars a million output tokens, and a cap of a cent.
macro_rules! priced {
    ($a:literal, $b:literal) => {
        concat!(
            "[tiers.t]\ncost_max_usd = 0.01\n[targets.\"a/m\"]\nprice = { input = 1.0, output = ",
            $a,
            " }\n[targets.\"b/m\"]\nprice = { input = 1.0, output = ",
            $b,
            " }\n"
        )
    };
}

/// Contract `c` has a validator at this URL.
macro_rules! validated {
    ($url:literal) => {
        concat!("[contracts.c]\nvalidators = { v = { url = \"", $url, "/check\", timeout = \"300ms\" } }\n")
    };
}

/// Contract `c` is judged by `c/m`, which is asked about every reply.
const JUDGED: &str = "[contracts.c]\nconfidence = { from = \"judge\", route = \"judge\", min = 0.7, timeout = \"500ms\" }\n\
                      [routes.judge]\ntargets = [\"c/m\"]\ntier = \"none\"\n";
const SORRY: &str =
    "[backstops.sorry]\nkind = \"static\"\nreply = \"Nobody can say that now. You asked: {{ text }}\"\n";
const C: &str = "contract = \"c\"";
const DOWN: &[(&str, &str)] = &[("a", "503"), ("b", "503")];
const BOTH_DOWN: &str = "a overloaded reroute; b overloaded retry_same; b+same_target overloaded give_up";

pub(crate) const ROWS: &[Row] = &[
    Row {
        class: "context_exceeded",
        what: "a target with a larger window",
        config: windows!("8000", "100000"),
        faults: &[("a", "context-exceeded")],
        trail: "a context_exceeded reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "context_exceeded",
        what: "never the same one, nor one that is no larger",
        targets: "a b c",
        config: concat!(windows!("8000", "4000"), "[targets.\"c/m\"]\ncontext_window = 100000\n"),
        faults: &[("a", "context-exceeded")],
        gets: Gets::Full("c"),
        trail: "a context_exceeded reroute; c ok deliver",
        ..ROW
    },
    Row {
        class: "context_exceeded",
        what: "seen before it is sent",
        asks: Asks::Long,
        config: windows!("1000", "100000"),
        trail: "b ok deliver",
        ..ROW
    },
    Row {
        class: "context_exceeded",
        what: "it fits nobody, and nobody is asked",
        asks: Asks::Long,
        config: windows!("1000", "1000"),
        gets: Gets::Error("context_length_exceeded"),
        trail: "",
        ..ROW
    },
    Row {
        class: "context_exceeded",
        what: "shortened where the contract allows it, and marked",
        asks: Asks::Long,
        route: C,
        config: concat!("[contracts.c]\nshorten = \"drop-oldest-turns\"\n", windows!("1000", "500")),
        gets: Gets::Less("a", "input"),
        trail: "a+shorten ok deliver",
        ..ROW
    },
    Row {
        class: "context_exceeded",
        what: "shortened after the only target has said that it is too long",
        asks: Asks::Long,
        targets: "a",
        route: C,
        config: "[contracts.c]\nshorten = \"drop-oldest-turns\"\n",
        faults: &[("a", "context-exceeded:first=1")],
        gets: Gets::Less("a", "input"),
        trail: "a context_exceeded reroute; a+shorten ok deliver",
        ..ROW
    },
    Row {
        class: "cost_spike",
        what: "a shorter input, where the contract allows it, and marked",
        asks: Asks::Long,
        targets: "a",
        route: "contract = \"c\"\ntier = \"t\"",
        config: "[contracts.c]\nshorten = \"drop-oldest-turns\"\n[tiers.t]\ncost_max_usd = 0.01\n\
                 [targets.\"a/m\"]\nprice = { input = 8.0, output = 10.0 }\n",
        gets: Gets::Less("a", "input"),
        trail: "a+shorten ok deliver",
        ..ROW
    },
    Row {
        class: "cost_spike",
        what: "cut before anything was shown, and nothing is left for another",
        ways: Ways::Streamed,
        route: "contract = \"c\"\ntier = \"t\"\nbackstops = [\"sorry\"]",
        asks: Asks::AtLength,
        config: concat!(
            priced!("100.0", "100.0"),
            "[contracts.c]\nstream = \"buffer\"\n",
            "[backstops.sorry]\nkind = \"static\"\nreply = \"Nobody can say that now.\"\n"
        ),
        faults: &[("a", "verbose:times=40")],
        gets: Gets::Backstop("sorry", "model"),
        trail: "a cost_spike give_up",
        hides: "and so on",
        ..ROW
    },
    Row {
        class: "cost_spike",
        what: "a stream that writes more than was paid for is cut and settled",
        ways: Ways::Streamed,
        targets: "a",
        route: "tier = \"t\"",
        asks: Asks::AtLength,
        config: priced!("100.0", "100.0"),
        faults: &[("a", "verbose:times=40")],
        gets: Gets::Interrupted("cost_spike"),
        trail: "a cost_spike interrupt",
        ..ROW
    },
    Row {
        class: "cost_spike",
        what: "what is too dear is not asked",
        route: "tier = \"t\"",
        config: priced!("1000.0", "1.0"),
        trail: "b ok deliver",
        ..ROW
    },
    Row {
        class: "cost_spike",
        what: "everybody is too dear",
        route: "tier = \"t\"",
        config: priced!("1000.0", "1000.0"),
        gets: Gets::Error("cost_spike"),
        trail: "",
        ..ROW
    },
    Row {
        class: "access_denied",
        what: "an account that may not use it",
        faults: &[("a", "access-denied:region")],
        trail: "a access_denied reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "access_denied",
        what: "a region the contract does not allow is never asked",
        route: C,
        config: "[contracts.c]\npermissions = { regions = [\"eu\"] }\n",
        trail: "b ok deliver",
        ..ROW
    },
    Row {
        class: "access_denied",
        what: "nobody may",
        faults: &[("a", "access-denied:model"), ("b", "access-denied:region")],
        gets: Gets::Error("access_denied"),
        trail: "a access_denied reroute; b access_denied give_up",
        ..ROW
    },
    Row {
        class: "unsupported",
        what: "it rejects what was adapted for it",
        targets: "r b",
        route: C,
        config: "[contracts.c]\nschema = { type = \"object\" }\n[providers.r]\nkind = \"openai-compatible\"\nbase_url = \"{refuser}/v1\"\n\
                 probes = false\n[targets.\"r/m\"]\ncapabilities = { json_schema = true }\n",
        trail: "r unsupported reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "invalid_request",
        what: "the client's own fault comes back at once",
        asks: Asks::Wrongly,
        gets: Gets::Error("invalid_request"),
        trail: "a invalid_request return_reason",
        says: "temperature",
        ..ROW
    },
    Row {
        class: "tool_failed",
        what: "a validator that nobody answers for passes nothing",
        route: C,
        config: validated!("{nobody}"),
        gets: Gets::Error("tool_failed"),
        trail: "a tool_failed(unjudged) give_up",
        ..ROW
    },
    Row {
        class: "tool_failed",
        what: "the backstop comes, and no other target is asked",
        route: "contract = \"c\"\nbackstops = [\"sorry\"]",
        config: concat!(
            validated!("{nobody}"),
            "[backstops.sorry]\nkind = \"static\"\nreply = \"Nobody can say that now.\"\n"
        ),
        gets: Gets::Error("tool_failed"),
        trail: "a tool_failed(unjudged) give_up",
        ..ROW
    },
    Row {
        class: "tool_failed",
        what: "a judge that is down passes nothing",
        route: C,
        config: JUDGED,
        faults: &[("c", "503")],
        gets: Gets::Error("tool_failed"),
        trail: "a tool_failed(unjudged) give_up",
        judged: 1,
        ..ROW
    },
    Row {
        class: "tool_failed",
        what: "a judge that hangs passes nothing",
        route: C,
        config: JUDGED,
        faults: &[("c", "hang")],
        gets: Gets::Error("tool_failed"),
        trail: "a tool_failed(unjudged) give_up",
        judged: 1,
        ..ROW
    },
    Row {
        class: "tool_failed",
        what: "a judge that babbles passes nothing",
        route: C,
        config: JUDGED,
        faults: &[("c", "say:It is a fine answer%2C nine out of ten.")],
        gets: Gets::Error("tool_failed"),
        trail: "a tool_failed(unjudged) give_up",
        judged: 1,
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "static: a reply from a template",
        route: "backstops = [\"sorry\"]",
        config: SORRY,
        faults: DOWN,
        gets: Gets::Backstop("sorry", "model"),
        trail: BOTH_DOWN,
        says: "You asked: Hello",
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "rules: the first that is true; none is, so the next backstop",
        route: "backstops = [\"faq\", \"sorry\"]",
        config: concat!(
            "[backstops.faq]\nkind = \"rules\"\nrules = [{ when = \"'refund' in text\", reply = \"Within 14 days.\" }]\n",
            "[backstops.sorry]\nkind = \"static\"\nreply = \"Nobody can say that now.\"\n"
        ),
        faults: DOWN,
        gets: Gets::Backstop("sorry", "model"),
        trail: BOTH_DOWN,
        hides: "14 days",
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "rules: one is true",
        route: "backstops = [\"faq\"]",
        config: "[backstops.faq]\nkind = \"rules\"\nrules = [{ when = \"'hello' in text | lower\", reply = \"Good day.\" }]\n",
        faults: DOWN,
        gets: Gets::Backstop("faq", "model"),
        trail: BOTH_DOWN,
        says: "Good day.",
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "cache: the last good reply to the same, with its age",
        before: true,
        route: "backstops = [\"cache\"]",
        faults: DOWN,
        gets: Gets::Backstop("cache", "freshness"),
        trail: BOTH_DOWN,
        says: "alpha answers",
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "cache: nothing is kept, so the error",
        route: "backstops = [\"cache\"]",
        faults: DOWN,
        gets: Gets::Error("overloaded"),
        trail: BOTH_DOWN,
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "queue: kept, and answered later",
        route: "backstops = [\"queue\"]",
        config: stored!(),
        faults: DOWN,
        gets: Gets::Later("queue"),
        trail: BOTH_DOWN,
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "confirm: the user is asked first",
        route: "backstops = [\"ask\"]",
        config: "[backstops.ask]\nkind = \"confirm\"\nquestion = \"A smaller model could answer. Go on?\"\nroute = \"small\"\n\
                 [routes.small]\ntargets = [\"c/m\"]\n",
        faults: DOWN,
        gets: Gets::Later("ask"),
        trail: BOTH_DOWN,
        says: "Go on?",
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "escalate: a person",
        route: "backstops = [\"escalate\"]",
        config: stored!(),
        faults: DOWN,
        gets: Gets::Later("escalate"),
        trail: BOTH_DOWN,
        ..ROW
    },
    Row {
        class: "exhausted",
        what: "fail: a typed error with a safe next step",
        route: "backstops = [\"call\"]",
        config: "[backstops.call]\nkind = \"fail\"\nnext = \"Call 0800 123 for anything urgent.\"\n",
        faults: DOWN,
        gets: Gets::Error("overloaded"),
        trail: BOTH_DOWN,
        says: "Call 0800 123",
        ..ROW
    },
];
