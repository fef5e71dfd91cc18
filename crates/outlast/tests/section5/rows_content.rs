//! Rows of what comes back whole and is still no answer: empty, of the wrong form, cut short, declined, blocked, below a
//! gate.

use crate::table::{Asks, Gets, ROW, Row};

/// A contract `c` with what a support answer has to be, and more.
macro_rules! structured {
    ($($more:tt)*) => {
        concat!(
            "[contracts.c]\nschema = { type = \"object\", required = [\"summary\", \"risk\", \"next_action\"], ",
            "additionalProperties = false, properties = { summary = { type = \"string\" }, ",
            "risk = { type = \"string\" }, next_action = { type = \"string\" } } }\n",
            $($more)*
        )
    };
}

/// A gate of contract `c`.
macro_rules! gate {
    ($($setting:literal),*) => { concat!("[contracts.c]\n", $($setting, "\n"),*) };
}

macro_rules! stored {
    () => {
        "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n"
    };
}

const C: &str = "contract = \"c\"";
/// What the fake answers under that schema.
const GOOD: &str = "\"next_action\"";
const DRIFT: &str = "renamed_by_the_vendor";
/// Everything that could bring a safety block to somebody else.
const EAGER: &str = "contract = \"c\"\ntier = \"t\"\nbackstops = [\"cache\", \"faq\", \"queue\"]";

pub(crate) const ROWS: &[Row] = &[
    Row {
        class: "empty",
        what: "the same target once more",
        faults: &[("a", "empty:first=1")],
        gets: Gets::Full("a"),
        trail: "a empty retry_same; a+same_target ok deliver",
        ..ROW
    },
    Row {
        class: "empty",
        what: "empty again, so somebody else",
        faults: &[("a", "empty")],
        trail: "a empty retry_same; a+same_target empty reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "empty",
        what: "nobody says anything",
        faults: &[("a", "empty"), ("b", "empty")],
        gets: Gets::Error("empty"),
        trail: "a empty retry_same; a+same_target empty reroute; b empty give_up",
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "a code fence is taken off",
        route: C,
        config: structured!("repair = 1\n"),
        faults: &[("a", "json-slip:fences")],
        gets: Gets::Full("a"),
        trail: "a ok deliver",
        says: GOOD,
        hides: "```",
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "trailing commas and missing closers are mended",
        route: C,
        config: structured!("repair = 1\n"),
        faults: &[("a", "json-slip:closers")],
        gets: Gets::Full("a"),
        trail: "a ok deliver",
        says: GOOD,
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "the model mends its own reply",
        route: C,
        config: structured!("repair = 1\n"),
        faults: &[("a", "schema-drift:first=1")],
        gets: Gets::Full("a"),
        trail: "a schema_error(drift) repair; a+repair ok deliver",
        says: GOOD,
        hides: DRIFT,
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "a model of the other dialect mends its own reply, too",
        targets: "b",
        route: C,
        config: structured!("repair = 1\n"),
        faults: &[("b", "schema-drift:first=1")],
        trail: "b schema_error(drift) repair; b+repair ok deliver",
        says: GOOD,
        hides: DRIFT,
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "mended or not, no repair follows a repair",
        targets: "a",
        route: C,
        config: structured!("repair = 1\n"),
        faults: &[("a", "schema-drift")],
        gets: Gets::Error("schema_error"),
        trail: "a schema_error(drift) repair; a+repair schema_error(drift) give_up",
        hides: DRIFT,
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "then a target that keeps a schema natively, before one that does not",
        targets: "a b c",
        route: C,
        config: structured!(
            "repair = 1\n[targets.\"b/m\"]\ncapabilities = { json_schema = false }\n[targets.\"c/m\"]\ncapabilities = { json_schema = true }\n"
        ),
        faults: &[("a", "schema-drift")],
        gets: Gets::Full("c"),
        trail: "a schema_error(drift) repair; a+repair schema_error(drift) reroute; c ok deliver",
        says: GOOD,
        hides: DRIFT,
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "then a person, where the contract says so",
        route: "contract = \"c\"\nbackstops = [\"escalate\"]",
        config: structured!("repair = { then = \"review\" }\n", stored!()),
        faults: &[("a", "schema-drift")],
        gets: Gets::Later("escalate"),
        trail: "a schema_error(drift) repair; a+repair schema_error(drift) give_up",
        hides: DRIFT,
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "nobody keeps it, and nothing of what they said is shown",
        route: C,
        config: structured!(""),
        faults: &[("a", "schema-drift"), ("b", "invalid-json")],
        gets: Gets::Error("schema_error"),
        trail: "a schema_error(drift) reroute; b schema_error(schema) give_up",
        hides: DRIFT,
        ..ROW
    },
    Row {
        class: "schema_error",
        what: "the narrower schema the contract names, marked",
        route: C,
        config: structured!(
            "degraded = { schema = { type = \"object\", required = [\"summary\"], properties = { summary = { type = \"string\" } } } }\n"
        ),
        faults: &[("a", "say:{\"summary\":\"narrow\"}"), ("b", "503")],
        gets: Gets::Less("a", "schema"),
        trail: "a schema_error(schema) deliver; b overloaded retry_same; b+same_target overloaded give_up",
        says: "narrow",
        ..ROW
    },
    Row {
        class: "truncated",
        what: "a target whose limit is wide enough",
        route: C,
        config: structured!("repair = 1\n"),
        faults: &[("a", "truncated")],
        trail: "a truncated reroute; b ok deliver",
        says: GOOD,
        ..ROW
    },
    Row {
        class: "truncated",
        what: "never passed as complete",
        route: C,
        config: structured!("repair = 1\n"),
        faults: &[("a", "truncated"), ("b", "truncated")],
        gets: Gets::Error("truncated"),
        trail: "a truncated reroute; b truncated give_up",
        hides: "{\\\"next_action",
        ..ROW
    },
    Row {
        class: "truncated",
        what: "half a tool call is not released",
        asks: Asks::Tools,
        targets: "a",
        faults: &[("a", "truncated")],
        gets: Gets::Error("truncated"),
        trail: "a truncated give_up",
        hides: "refund_order",
        ..ROW
    },
    Row {
        class: "refusal",
        what: "it is the reply, where the contract says nothing",
        faults: &[("a", "refusal")],
        gets: Gets::Declined("a"),
        trail: "a ok deliver",
        says: "refusal",
        ..ROW
    },
    Row {
        class: "refusal",
        what: "of the other dialect, and still a refusal",
        targets: "b",
        faults: &[("b", "refusal")],
        gets: Gets::Declined("b"),
        trail: "b ok deliver",
        ..ROW
    },
    Row {
        class: "refusal",
        what: "the last to decline is believed",
        route: C,
        config: gate!("refusal = \"reroute\""),
        faults: &[("a", "refusal"), ("b", "refusal")],
        gets: Gets::Declined("b"),
        trail: "a refusal reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "refusal",
        what: "it is told as the reason where the next target fails",
        route: C,
        config: gate!("refusal = \"reroute\""),
        faults: &[("a", "refusal"), ("b", "503")],
        gets: Gets::Error("refusal"),
        trail: "a refusal reroute; b overloaded retry_same; b+same_target overloaded give_up",
        hides: "I can't assist",
        ..ROW
    },
    Row {
        class: "refusal",
        what: "the next target, where the contract allows it",
        route: C,
        config: gate!("refusal = \"reroute\""),
        faults: &[("a", "refusal")],
        trail: "a refusal reroute; b ok deliver",
        hides: "I can't assist",
        ..ROW
    },
    Row {
        class: "refusal",
        what: "a person, where the contract says so",
        route: "contract = \"c\"\nbackstops = [\"escalate\"]",
        config: concat!(gate!("refusal = \"review\""), stored!()),
        faults: &[("a", "refusal")],
        gets: Gets::Later("escalate"),
        trail: "a refusal give_up",
        ..ROW
    },
    Row {
        class: "safety_block",
        what: "the reason, and nobody else is asked, whatever else the route has",
        before: true,
        route: EAGER,
        config: concat!(
            structured!("repair = 1\nrefusal = \"reroute\"\n"),
            "[tiers.t]\nattempts = 5\nhedge = true\n",
            "[backstops.faq]\nkind = \"rules\"\nrules = [{ when = \"true\", reply = '{\"summary\":\"Sorry.\",\"risk\":\"low\",\"next_action\":\"wait\"}' }]\n",
            stored!()
        ),
        faults: &[("a", "content-filter")],
        gets: Gets::Error("content_filter"),
        trail: "a safety_block return_reason",
        hides: "Sorry",
        ..ROW
    },
    Row {
        class: "safety_block",
        what: "of a target of the other dialect",
        targets: "b a",
        faults: &[("b", "content-filter")],
        gets: Gets::Error("content_filter"),
        trail: "b safety_block return_reason",
        ..ROW
    },
    Row {
        class: "safety_block",
        what: "after somebody else had failed",
        targets: "a b c",
        faults: &[("a", "503"), ("b", "content-filter")],
        gets: Gets::Error("content_filter"),
        trail: "a overloaded reroute; b safety_block return_reason",
        ..ROW
    },
    Row {
        class: "safety_block",
        what: "a person may see it, where the contract says so",
        route: "contract = \"c\"\nbackstops = [\"escalate\"]",
        config: concat!(gate!("safety = \"review\""), stored!()),
        faults: &[("a", "content-filter")],
        gets: Gets::Later("escalate"),
        trail: "a safety_block give_up",
        ..ROW
    },
    Row {
        class: "tool_mismatch",
        what: "a target that can call tools",
        asks: Asks::Tools,
        faults: &[("a", "unsupported-tools")],
        trail: "a tool_mismatch reroute; b ok deliver",
        says: "refund_order",
        ..ROW
    },
    Row {
        class: "tool_mismatch",
        what: "a call whose arguments are no JSON is not released",
        asks: Asks::Tools,
        targets: "a",
        faults: &[("a", "bad-tool-args")],
        gets: Gets::Error("tool_mismatch"),
        trail: "a tool_mismatch give_up",
        hides: "refund_order",
        ..ROW
    },
    Row {
        class: "tool_mismatch",
        what: "without anybody who can, a plan",
        asks: Asks::Tools,
        route: C,
        config: "[contracts.c]\ntools = { primary = \"full\", fallback = \"plan-only\", read_only = [\"lookup_order\"] }\n\
                 [targets.\"b/m\"]\ncapabilities = { tools = false }\n",
        faults: &[("a", "unsupported-tools")],
        gets: Gets::Less("b", "tools"),
        trail: "a tool_mismatch reroute; b ok deliver",
        says: "Not done: refund_order",
        ..ROW
    },
    Row {
        class: "quality",
        what: "a source that nobody supplied",
        asks: Asks::Sources,
        route: C,
        config: gate!("evidence = { sources = \"outlast.sources\" }"),
        faults: &[("a", "say:It is blue [doc-9]."), ("b", "say:It is red [doc-1].")],
        trail: "a quality(citation) reroute; b ok deliver",
        says: "red",
        hides: "blue",
        ..ROW
    },
    Row {
        class: "quality",
        what: "a phrase that has to be there",
        route: C,
        config: gate!("must_include = [\"14 days\"]"),
        faults: &[("a", "say:Soon."), ("b", "say:Within 14 days.")],
        trail: "a quality(must_include) reroute; b ok deliver",
        hides: "Soon.",
        ..ROW
    },
    Row {
        class: "quality",
        what: "a phrase that must not be there",
        route: C,
        config: gate!("must_not = [\"guaranteed\"]"),
        faults: &[("a", "say:It is guaranteed."), ("b", "say:It is likely.")],
        trail: "a quality(must_not) reroute; b ok deliver",
        hides: "guaranteed",
        ..ROW
    },
    Row {
        class: "quality",
        what: "another language",
        route: C,
        config: gate!("language = \"en\""),
        faults: &[
            (
                "a",
                "say:Das ist leider nicht möglich%2C weil die Bestellung schon auf dem Weg zu Ihnen ist und nicht mehr geändert werden kann.",
            ),
            (
                "b",
                "say:That is not possible because the order is already on its way to you and can no longer be changed.",
            ),
        ],
        trail: "a quality(language) reroute; b ok deliver",
        hides: "leider",
        ..ROW
    },
    Row {
        class: "quality",
        what: "too short",
        route: C,
        config: gate!("length = { min = 20 }"),
        faults: &[("a", "say:Yes."), ("b", "say:Yes%2C and this is why it is so.")],
        trail: "a quality(length) reroute; b ok deliver",
        ..ROW
    },
    Row {
        class: "quality",
        what: "text that repeats itself",
        route: C,
        config: gate!("duplicates = \"reject\""),
        faults: &[("a", "verbose:times=20")],
        trail: "a quality(duplicate) reroute; b ok deliver",
        hides: "and so on",
        ..ROW
    },
    Row {
        class: "quality",
        what: "an expression that is not true",
        route: C,
        config: gate!("expressions = { short = \"text | length < 20\" }"),
        faults: &[("a", "say:This goes on for far too long."), ("b", "say:Short.")],
        trail: "a quality(expression) reroute; b ok deliver",
        hides: "far too long",
        ..ROW
    },
    Row {
        class: "quality",
        what: "less sure than it has to be",
        route: C,
        config: gate!("confidence = { from = \"sure\", min = 0.7 }"),
        faults: &[("a", "say:{\"answer\":\"red\"%2C\"sure\":0.4}"), ("b", "say:{\"answer\":\"blue\"%2C\"sure\":0.9}")],
        trail: "a quality(confidence) reroute; b ok deliver",
        hides: "red",
        ..ROW
    },
    Row {
        class: "quality",
        what: "votes that stay divided",
        targets: "a b c",
        route: "tier = \"t\"",
        config: "[tiers.t]\nattempts = 1\nvotes = { ahead = 2, samples = 3 }\n",
        faults: &[("a", "say:one"), ("b", "say:two"), ("c", "say:three")],
        gets: Gets::Error("quality"),
        trail: "a ok give_up; b ok give_up",
        ..ROW
    },
    Row {
        class: "quality",
        what: "a dissenter is outvoted",
        targets: "a b c",
        route: "tier = \"t\"",
        config: "[tiers.t]\nattempts = 1\nvotes = { ahead = 1, samples = 3 }\n",
        faults: &[("a", "503"), ("b", "say:two"), ("c", "say:two")],
        trail: "a overloaded give_up; b ok deliver",
        says: "two",
        ..ROW
    },
    Row {
        class: "quality",
        what: "a claim of an action that was withheld",
        asks: Asks::Tools,
        route: C,
        config: "[contracts.c]\ntools = { primary = \"plan-only\", fallback = \"plan-only\" }\n\
                 [targets.\"a/m\"]\ncapabilities = { tools = true }\n[targets.\"b/m\"]\ncapabilities = { tools = true }\n",
        faults: &[
            ("a", "say:I have refunded the order as promised."),
            ("b", "say:I have refunded the order as promised."),
        ],
        gets: Gets::Error("quality"),
        trail: "a quality(claim) reroute; b quality(claim) give_up",
        hides: "refunded",
        ..ROW
    },
    Row {
        class: "quality",
        what: "the model mends it, with what is wrong named",
        route: C,
        config: gate!("must_include = [\"14 days\"]", "repair = 1"),
        faults: &[("a", "say:Soon.,first=1"), ("b", "503")],
        gets: Gets::Error("quality"),
        trail: "a quality(must_include) repair; a+repair quality(must_include) reroute; b overloaded give_up",
        ..ROW
    },
];
