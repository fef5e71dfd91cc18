//! Contracts that are there without being written: `contract = "rag"`. A contract of one's own may start from one.
//! `docs/config.md` writes each of them out, and a test holds the page to this file.

use super::words::PresetChoice;
use outlast_model::policy::{
    Contract, Evidence, Fix, Keep, RefusalPolicy, Repair, Schema, Shorten, StreamContract, ToolMode, ToolPolicy,
};

impl PresetChoice {
    /// Every preset.
    pub(super) const ALL: [PresetChoice; 4] =
        [PresetChoice::Chat, PresetChoice::Extraction, PresetChoice::Rag, PresetChoice::Agent];

    /// The name used in config.
    pub(super) const fn name(self) -> &'static str {
        match self {
            PresetChoice::Chat => "chat",
            PresetChoice::Extraction => "extraction",
            PresetChoice::Rag => "rag",
            PresetChoice::Agent => "agent",
        }
    }

    /// The preset of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        PresetChoice::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// What it promises.
    pub(super) fn contract(self) -> Contract {
        let plain = Contract::plain(self.name(), StreamContract::Fail);
        let repair = Repair { fixes: Fix::ALL.to_vec(), model: true, ..Repair::default() };
        match self {
            PresetChoice::Chat => Contract {
                shorten: Some(Shorten::DropOldestTurns),
                notice: Some("I could not do everything as usual this time. {{ saved }} {{ next }}".into()),
                ..plain
            },
            PresetChoice::Extraction => {
                let mut contract = Contract { refusal: RefusalPolicy::Reroute, repair, ..plain };
                let json = r#"{"type":"object"}"#;
                contract.checks.schema = Some(Schema { source: "preset extraction".into(), json: json.into() }.into());
                contract
            }
            PresetChoice::Rag => {
                let notice = "I could not answer this from your sources as usual. {{ saved }} {{ next }}";
                let mut contract = Contract { repair, notice: Some(notice.into()), ..plain };
                contract.checks.evidence =
                    Some(Evidence { sources: "outlast.sources".into(), citations: None, min: 1 });
                contract
            }
            PresetChoice::Agent => Contract {
                keeps: vec![Keep::Step, Keep::ToolResults],
                tools: Some(ToolPolicy {
                    primary: ToolMode::Full,
                    fallback: ToolMode::PlanOnly,
                    read_only: Vec::new(),
                }),
                notice: Some("I can still help, but live actions are limited. {{ saved }} {{ next }}".into()),
                ..plain
            },
        }
    }
}
