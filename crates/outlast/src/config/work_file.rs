//! The grammar of durable work: tools, MCP servers, workflows, and the people who decide.

use super::{
    file::SlaFile,
    promises::MessageFile,
    read::{At, FromToml, Log, Named, Place, Span, Time},
    words::JsonSetting,
    work_words::{
        AnyJson, ApprovalSetting, EffectChoice, ExhaustedChoice, Fields, MethodChoice, NotifyChoice, StepChoice,
        ToolKindChoice, UnansweredChoice,
    },
};
use schemars::JsonSchema;
use toml::de::DeValue;

sections! {
    /// What may be called through `/v1/tools/NAME` and by workflows.
    ToolFile {
        /// How it is reached.
        #[schemars(required)]
        kind: ToolKindChoice,
        /// What it does, for models and people.
        description: String,
        /// What happens in the world when it is called twice. There is no default: a wrong guess pays twice.
        #[schemars(required)]
        effect: EffectChoice,
        /// With `keyed`: how long the receiver keeps our key. Up to 366 days.
        key_ttl: Span,
        /// With `verify`: how long after the last moment it may still happen the receiver is asked. Default: 30s.
        quiet_period: Time,
        /// How the receiver is asked whether it happened.
        verify: VerifyFile,
        /// Of `http`: where.
        url: String,
        /// Of `http`: how. Default: POST.
        method: MethodChoice,
        /// Of `http`: sent with every request.
        headers: Named<String>,
        /// Of `http`: the header that carries our key. Default: Idempotency-Key.
        key_header: String,
        /// Of `mcp`: the server, of `[mcp.NAME]`.
        server: String,
        /// Of `mcp`: what the tool is called there. Default: its name here.
        tool: String,
        /// Of `worker`: whose workers do it.
        queue: String,
        /// How long one attempt may take. Default: 30s.
        timeout: Time,
        /// How often, how long and for how much it is tried.
        retry: RetryFile,
        /// What is tried next once it surely did not happen and the tool is away, in this order.
        alternatives: Vec<At<String>>,
        /// Whether a person has to agree before it is called. Default: never.
        approval: ApprovalSetting,
        /// The JSON Schema of its arguments: a file, relative to the config file, or a table.
        input: JsonSetting,
        /// The JSON Schema of its result.
        output: JsonSetting,
    }

    /// How a receiver is asked whether an effect took place.
    VerifyFile {
        /// Where. A 404 means that it did not take place.
        url: String,
        /// How. Default: POST.
        method: MethodChoice,
        /// Sent with every request.
        headers: Named<String>,
        /// The tool that is asked instead, of class `pure`.
        tool: String,
        /// What is asked, over `key` and `arguments`. Default: these two.
        input: Fields,
        /// The expression over `response`, `arguments` and `key` that is true if it took place and false if not.
        #[schemars(required)]
        done: String,
        /// The expression over the same that gives its result. Default: the response.
        result: String,
    }

    /// How often, how long and for how much something is tried.
    RetryFile {
        /// The most attempts, the first included. Default: 4.
        attempts: u32,
        /// No attempt begins later than this after the first. Default: none.
        within: Span,
        /// No attempt begins once so much was spent. Default: none.
        cost_max_usd: f64,
        /// The wait before the second attempt; it doubles with each, with jitter. Default: 1s.
        base: Time,
        /// The longest wait between two attempts. Default: 60s.
        cap: Time,
        /// What becomes of it when nothing of this is left. Default: escalate.
        exhausted: ExhaustedChoice,
    }

    /// When a person has to agree.
    ApprovalFile {
        /// The expression over `arguments`. If it cannot be evaluated, a person has to agree.
        #[schemars(required)]
        when: String,
    }

    /// An MCP server: a program, or an address.
    McpFile {
        /// The program and what it is started with.
        command: Vec<At<String>>,
        /// What is set in its environment.
        env: Named<String>,
        /// Where, over streamable HTTP.
        url: String,
        /// Sent with every request.
        headers: Named<String>,
    }

    /// What the server runs by itself, step by step.
    WorkflowFile {
        /// Its version. A run keeps the one it was started with: change it with the workflow.
        #[schemars(required)]
        version: String,
        /// The JSON Schema of a run's input: a file, relative to the config file, or a table.
        input: JsonSetting,
        /// Nothing begins later than this after a run's start. Up to 366 days. Default: none.
        deadline: Span,
        /// Nothing begins once a run has spent so much. Default: none.
        cost_max_usd: f64,
        /// What a run results in: texts in it are templates. Default: the result of its last step.
        output: AnyJson,
        /// The steps. A run begins with the first.
        #[schemars(required)]
        steps: Vec<At<StepFile>>,
    }

    /// A step of a workflow. Its texts are templates over `input`, `steps` (results by step) and `run`.
    StepFile {
        /// Its name, for the journal and for `steps.NAME`.
        #[schemars(required)]
        name: String,
        /// What it does.
        #[schemars(required)]
        kind: StepChoice,
        /// The expression that has to be true for it to be done. Otherwise it is skipped, and `steps.NAME` is none.
        when: String,
        /// Of `model` and `agent`: who answers, with its contract and tier.
        route: String,
        /// Of `model` and `agent`: what must stay true here, in place of the route's contract.
        contract: String,
        /// Of `model` and `agent`: how much redundancy a call may spend here, in place of the route's tier.
        tier: String,
        /// Of `model` and `agent`: what is asked, as one user message.
        prompt: String,
        /// Of `model`: what is asked, as a conversation.
        messages: Vec<At<MessageFile>>,
        /// Of `agent`: the system message.
        instructions: String,
        /// Of `agent`: what it may call.
        tools: Vec<At<String>>,
        /// Of `agent`: the most model calls. Default: 20.
        max_turns: u32,
        /// Of `agent`: it stops once it has spent so much. Default: none.
        cost_max_usd: f64,
        /// Of `tool`: what is called.
        tool: String,
        /// Of `tool`: its arguments. A text that is one `{{ expression }}` and nothing else keeps its type. Default: none.
        input: Fields,
        /// Of `tool`: the effect's business key, the same in every run that means the same. Default: the step's own.
        key: String,
        /// Of `human`: what is asked.
        question: String,
        /// Of `human`: what is shown with the question, and the result if it is approved.
        context: AnyJson,
        /// Of `wait`: for one of these signals.
        signals: Vec<At<String>>,
        /// Of `wait` with `signals`: at most so long. Default: as long as the run may take.
        timeout: Span,
        /// Of `wait` without `signals`: exactly so long.
        r#for: Span,
        /// Where it leads: the first branch that holds. Default: to the next step in the file.
        next: Vec<At<BranchFile>>,
        /// How often a run may come to it. Needed in a loop, and only there.
        max_visits: u32,
        /// How often, how long and for how much it is tried. Default for a tool: the tool's own.
        retry: RetryFile,
        /// Of `tool`: what undoes it when the run fails or is cancelled later.
        undo: UndoFile,
        /// What a wrong or missing result costs, in your words. Up to 500 characters.
        risk: String,
        /// What is promised for it.
        sla: SlaFile,
    }

    /// One way on from a step.
    BranchFile {
        /// The expression that has to be true. Default: always.
        when: String,
        /// A step, `end`, or `fail`.
        #[schemars(required)]
        to: String,
    }

    /// What undoes a step.
    UndoFile {
        /// The tool that does.
        #[schemars(required)]
        tool: String,
        /// Its arguments.
        input: Fields,
        /// Its business key. Default: the step's own.
        key: String,
    }

    /// Somebody who may decide.
    ReviewerFile {
        /// Their key, as `${ENV}` or `blake3:` and 64 hexadecimal digits.
        #[schemars(required)]
        key: String,
        /// Where they are written to.
        email: String,
    }

    /// A way to tell somebody of work that waits for a person.
    NotifyFile {
        /// How.
        #[schemars(required)]
        kind: NotifyChoice,
        /// Of `webhook` and `slack`: where.
        url: String,
        /// Of `webhook`: signs the POST with HMAC-SHA256, as `${ENV}`.
        secret: String,
        /// Of `email`: the server, like `smtps://user:${SMTP_PASSWORD}@smtp.example.com:465`.
        smtp: String,
        /// Of `email`: the sender.
        from: String,
        /// Of `email`: the addresses.
        to: Vec<At<String>>,
    }

    /// What happens to work that waits for a person.
    EscalationsFile {
        /// Nobody decided by then: `unanswered` says what follows. Default: none.
        answer_within: Span,
        /// How often those who were told are told again. Default: never.
        remind_every: Span,
        /// Who is told, and when.
        levels: Vec<At<LevelFile>>,
        /// What follows when nobody decided. Default: wait.
        unanswered: UnansweredChoice,
    }

    /// Who is told of work that waits.
    LevelFile {
        /// How long it has waited by then. Default for the first: at once.
        after: Span,
        /// Through these, of `[notify.NAME]`.
        notify: Vec<At<String>>,
        /// These, of `[reviewers.NAME]`, by mail.
        reviewers: Vec<At<String>>,
    }

    /// How the server runs workflows by itself.
    RunsFile {
        /// How many runs it works on at once. Default: 64.
        executors: u32,
        /// How long a claim of its own stands unless it is renewed. Default: 30s.
        lease: Time,
    }
}
