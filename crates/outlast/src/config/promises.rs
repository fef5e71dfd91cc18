//! The grammar of what is promised and what keeps it: contracts, tiers, backstops, the store, golden tasks.

use super::{
    read::{At, FromToml, Log, Named, Place, Time},
    words::{
        AfterRepairChoice, AgreeSetting, BackstopChoice, DisagreementChoice, DuplicatesChoice, FixChoice, HedgeSetting,
        InputSetting, JsonSetting, KeepChoice, Names, PresetChoice, RefusalChoice, RepairSetting, RoleChoice,
        SafetyChoice, ShortenChoice, SpreadChoice, StreamChoice, ToolModeChoice,
    },
};
use schemars::JsonSchema;
use toml::de::DeValue;

sections! {
    /// What must stay true whichever target answers.
    ContractFile {
        /// What this contract starts from; its own settings come over it.
        preset: PresetChoice,
        /// What a stream promises about failures after it began. Default: buffer where the whole reply is judged, else fail; hold in a route of tier critical.
        stream: StreamChoice,
        /// How much `stream = "hold"` holds back.
        hold: HoldFile,
        /// The JSON Schema the reply has to keep: a file, relative to the config file, or a table.
        schema: JsonSetting,
        /// The sources the reply has to name.
        evidence: EvidenceFile,
        /// Phrases that have to be in the text. Case and white space do not count.
        must_include: Vec<At<String>>,
        /// Phrases that must not be in the text.
        must_not: Vec<At<String>>,
        /// The language of the text, as ISO 639-1: `en`, `de`.
        language: String,
        /// How long the text may be.
        length: LengthFile,
        /// Whether text that repeats itself is rejected. Default: allow.
        duplicates: DuplicatesChoice,
        /// Expressions that have to be true, by name, over `reply`, `text` and `request`.
        expressions: Named<String>,
        /// How sure the reply has to be, and who says so.
        confidence: ConfidenceFile,
        /// Validators of your own, by name, asked over HTTP once everything else has passed.
        validators: Named<ValidatorFile>,
        /// What every target has to be able to take in.
        needs: NeedsFile,
        /// Where a request may go and what the model may call.
        permissions: PermissionsFile,
        /// The workflow state that no path may lose.
        keeps: Vec<At<KeepChoice>>,
        /// How a reply that breaks the contract may be mended: 0, 1 (every fix, then the model once), or a table. Default: 0.
        repair: RepairSetting,
        /// What the model may do with tools. Default: whatever the request offers, on targets that can call tools.
        tools: ToolsFile,
        /// How the input may be made to fit when no target takes all of it; marked degraded. Default: never.
        shorten: ShortenChoice,
        /// What may be served, marked degraded, when no path keeps the contract.
        degraded: DegradedFile,
        /// The template of what an end user is told when something was given up, over `saved`, `next`, `gave_up`, `actions`, `age` and `step`.
        notice: String,
        /// Whether bodies may carry the `outlast` object. Default: true.
        body_notes: bool,
        /// What happens to a refusal. Default: deliver.
        refusal: RefusalChoice,
        /// What happens to a safety block. It never reaches another model. Default: return.
        safety: SafetyChoice,
    }

    /// How much is held back: until so many tokens have come or so much time has passed.
    HoldFile {
        /// Release at this many tokens. Default: 32.
        tokens: u32,
        /// Release this long after the first token. Default: 500ms.
        after: Time,
    }

    /// Which sources a reply has to name.
    EvidenceFile {
        /// The path in the request's body where the sources are: a list of ids, or of objects with an `id`.
        #[schemars(required)]
        sources: String,
        /// The path in the reply's JSON where it names them. Default: none, marks like `[id]` in the text.
        citations: String,
        /// The fewest distinct sources to be named. Default: 1.
        min: u32,
    }

    /// How long a text may be, in characters.
    LengthFile {
        /// At least.
        min: u32,
        /// At most.
        max: u32,
    }

    /// How sure a reply has to be.
    ConfidenceFile {
        /// Who says so: the path of a number from 0 to 1 in the reply's JSON, `votes` (of the tier), `judge` (another route), or `field` with `field`.
        #[schemars(required)]
        from: String,
        /// The path in the reply's JSON, for a field that is called like one of those words.
        field: String,
        /// The route that judges.
        route: String,
        /// What the judge is to look for.
        instructions: String,
        /// The most one verdict may cost. Default: whatever the call has left.
        cost_max_usd: f64,
        /// The longest a verdict may take. Default: 30s.
        timeout: Time,
        /// The least that passes, 0 to 1.
        #[schemars(required)]
        min: f64,
    }

    /// A validator of your own. It gets a POST with the request and the reply and answers `{"ok": true}` or false.
    ValidatorFile {
        /// Where.
        #[schemars(required)]
        url: String,
        /// The longest it may take; without an answer nothing passes. Default: 5s.
        timeout: Time,
    }

    /// What every target has to be able to take in.
    NeedsFile {
        /// The least context window, in tokens.
        context: u32,
        /// Function tools.
        tools: bool,
        /// Images.
        images: bool,
    }

    /// Where a request may go and what the model may call. What is absent is not limited.
    PermissionsFile {
        /// The regions it may be sent to. A target of unstated region is not one of them.
        regions: Vec<At<String>>,
        /// The providers it may be sent to.
        providers: Vec<At<String>>,
        /// The tools the model may call; others are not offered to it.
        tools: Vec<At<String>>,
    }

    /// How a reply that breaks the contract may be mended.
    RepairFile {
        /// The syntactic repairs allowed. Default: all.
        fixes: Vec<At<FixChoice>>,
        /// Whether the model may be asked once to mend its own reply. Default: true.
        model: bool,
        /// What comes when that did not help. Default: reroute.
        then: AfterRepairChoice,
    }

    /// What the model may do with tools, by where the target stands in the route.
    ToolsFile {
        /// On the route's first target. Default: full.
        primary: ToolModeChoice,
        /// On every other. Default: plan-only.
        fallback: ToolModeChoice,
        /// The tools that only read; all others write.
        read_only: Vec<At<String>>,
    }

    /// What may be served when no path keeps the contract.
    DegradedFile {
        /// The narrower JSON Schema: a file or a table. What is served keeps this one.
        #[schemars(required)]
        schema: JsonSetting,
    }

    /// How much redundancy a route may spend.
    TierFile {
        /// The most attempts of one call, the first included. Default: 3.
        attempts: u32,
        /// How many distinct providers a route of this tier must have. Default: 1.
        distinct_providers: u32,
        /// From admission to the end of the reply. Default: 600s.
        deadline: Time,
        /// The most one call may cost in dollars, everything included; targets of unknown price are then left out. Default: none.
        cost_max_usd: f64,
        /// Whether a slow first output is raced by another target: true, or a table. Default: false.
        hedge: HedgeSetting,
        /// Several replies vote. Default: none.
        votes: VotesFile,
        /// The backstops, one or a list, of routes that name none of their own. Default: none, a typed error.
        exhausted: Names,
    }

    /// How a slow first output is raced.
    HedgeFile {
        /// The largest share of calls that may be hedged, 0 to 1. Default: 0.05.
        budget: f64,
    }

    /// Several replies vote: the first answer that is `ahead` of every other one wins.
    VotesFile {
        /// By how many votes the winner must lead. Default: 2.
        ahead: u32,
        /// The most replies asked for, at most 5. Default: 5.
        samples: u32,
        /// Where they come from. Default: targets.
        spread: SpreadChoice,
        /// When two JSON replies agree, by the field's path: `exact`, `text`, `ignore`, `set`, `{ number = 0.01 }` or `{ set = "key" }`. Default: exact.
        fields: Named<AgreeSetting>,
        /// What comes when nobody wins. Default: fail.
        disagreement: DisagreementChoice,
        /// Another route that says whether two texts mean the same in other words. Default: none, other words differ.
        judge: VotesJudgeFile,
    }

    /// A route that says whether two texts mean the same. Where it gives no verdict, they differ.
    VotesJudgeFile {
        /// The route that judges.
        #[schemars(required)]
        route: String,
        /// What it is to look for.
        instructions: String,
        /// The most one comparison may cost. Default: whatever the call has left.
        cost_max_usd: f64,
        /// The longest it may take. Default: 30s.
        timeout: Time,
    }

    /// How two values are compared.
    AgreeFile {
        /// Numbers no further apart than this agree.
        number: f64,
        /// Lists with the same members agree, objects matched by this key.
        set: String,
    }

    /// A deterministic end of a route.
    BackstopFile {
        /// What it does.
        #[schemars(required)]
        kind: BackstopChoice,
        /// static: the template of its text, over `request` (the body), `text` (its last user turn) and `route`.
        reply: String,
        /// rules: tried in order.
        rules: Vec<At<RuleFile>>,
        /// cache: an older reply is not given. Default: 1h.
        max_age: Time,
        /// queue, confirm: after this the request, or the question, is void. Default: 24h for queue, 15m for confirm.
        expires: Time,
        /// queue: told when the request is done or expired.
        webhook: WebhookFile,
        /// confirm, escalate: the template of the question, over the same facts. Confirm has to have one.
        question: String,
        /// confirm: who answers after a yes.
        route: String,
        /// fail: the template of the safe next step it names.
        next: String,
    }

    /// One rule.
    RuleFile {
        /// The expression over the same facts that has to be true.
        #[schemars(required)]
        when: String,
        /// The template of the reply's text.
        #[schemars(required)]
        reply: String,
    }

    /// Where a finished request is announced.
    WebhookFile {
        /// Gets the POST.
        #[schemars(required)]
        url: String,
        /// Signs the POST with HMAC-SHA256, as `${ENV}`.
        #[schemars(required)]
        secret: String,
    }

    /// Where what has to outlive a request is kept. A reload cannot change it.
    StoreFile {
        /// The SQLite file, relative to the config file.
        #[schemars(required)]
        file: String,
        /// Encrypts payloads: 32 random bytes as base64, as `${ENV}`.
        data_key: String,
        /// Several such keys: the first encrypts, all of them decrypt. To change a key, put the new one first.
        data_keys: Vec<At<String>>,
        /// Prompts and answers stand in the file as they are. Default: false.
        plaintext_payloads: bool,
    }

    /// An input with checkable properties.
    GoldenFile {
        /// Whose targets are asked, each in turn. Default: the file's.
        route: String,
        /// How often; at least 1m. Default: 15m.
        every: Time,
        /// What is asked: a text, or a list of messages.
        input: InputSetting,
        /// A JSON file with the task, relative to the config file, instead of the settings here.
        file: String,
        /// What the request brings along.
        fixtures: FixturesFile,
        /// Phrases that have to be in the reply.
        must_include: Vec<At<String>>,
        /// Phrases that must not be in it.
        must_not: Vec<At<String>>,
        /// The JSON Schema the reply has to keep: a file or a table.
        schema: JsonSetting,
        /// Whether the reply has to name one of the sources. Default: false.
        requires_citation: bool,
    }

    /// What the request of a golden task brings along.
    FixturesFile {
        /// The ids of its sources, as `outlast.sources`.
        sources: Vec<At<String>>,
    }

    /// One message.
    MessageFile {
        /// Who says it.
        #[schemars(required)]
        role: RoleChoice,
        /// What.
        #[schemars(required)]
        content: String,
    }
}
