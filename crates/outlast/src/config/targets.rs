//! Judges targets: found by their names, and filled in from the provider, the catalogue and `[targets]`.

use super::{
    catalogue::{self, Catalogue, Known},
    file::{PriceFile, TargetFile},
    providers::{self, Judged},
    read::{At, Log, Named, Place, did_you_mean},
    routes::join,
};
use outlast_model::{
    Price, TargetId,
    policy::{Ability, Capabilities, TargetSpec},
};
use std::collections::{BTreeMap, BTreeSet};

/// The most models of one provider that `direct = "catalogue"` opens: each is a target that the fleet keeps state for,
/// and a line in every list of targets.
const CATALOGUE_MODELS_MAX: usize = 128;

/// The targets found so far and what is needed to judge another.
pub(super) struct Book<'f> {
    /// Every provider the file names, with errors or without: a reference to a broken one is no second error.
    pub(super) names: BTreeSet<&'f str>,
    pub(super) providers: &'f BTreeMap<String, Judged>,
    pub(super) overlays: &'f Named<TargetFile>,
    pub(super) catalogue: Catalogue,
    pub(super) specs: BTreeMap<TargetId, TargetSpec>,
}

impl Book<'_> {
    /// Finds or makes a target by its name. `None`: the log has the reason.
    pub(super) fn target(&mut self, name: &str, place: &Place, log: &mut Log) -> Option<TargetId> {
        let Some((provider, model)) =
            name.split_once('/').filter(|(provider, model)| !provider.is_empty() && !model.is_empty())
        else {
            let remedy = match self.names.first() {
                Some(only) if self.names.len() == 1 => format!("Write \"{only}/{name}\"").replace("//", "/"),
                _ => "Write provider/model".to_owned(),
            };
            log.error(place, format_args!("\"{name}\" is not a target, which is written provider/model"), remedy);
            return None;
        };
        if name.len() > 256 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            log.error(place, "a target's name has up to 256 characters and no spaces", "Correct the model's name");
            return None;
        }
        if !self.names.contains(provider) {
            let remedy = match did_you_mean(provider, self.names.iter().copied()) {
                Some(near) => format!("Did you mean \"{near}/{model}\"? Otherwise add [providers.{provider}]"),
                None if self.names.is_empty() => format!("Add [providers.{provider}]"),
                None => format!("Add [providers.{provider}] or use one of: {}", join(&self.names)),
            };
            log.error(place, format_args!("there is no provider \"{provider}\""), remedy);
            return None;
        }
        let id = TargetId::from(name);
        if !self.specs.contains_key(&id) {
            let spec = self.spec(&id, place, log)?;
            self.specs.insert(id.clone(), spec);
        }
        Some(id)
    }

    fn spec(&mut self, id: &TargetId, place: &Place, log: &mut Log) -> Option<TargetSpec> {
        let judged = self.providers.get(id.provider())?;
        let known = judged.vendor.and_then(|vendor| self.catalogue.find(vendor, id.model()));
        let overlay = self.overlays.get(id.as_str());
        if let (Some(vendor @ ("openai" | "anthropic")), None, None) = (judged.vendor, known, overlay) {
            let near = did_you_mean(id.model(), self.catalogue.models(vendor));
            let hint = near.map(|near| format!("; did you mean \"{near}\"")).unwrap_or_default();
            log.warn(
                place,
                format_args!(
                    "the catalogue has no model \"{}\" of {vendor}, so its price and context window are unknown{hint}",
                    id.model()
                ),
            );
        }
        Some(merge(id, judged, known, overlay.map(|overlay| &overlay.value), log))
    }

    /// Adds the catalogue's models of every provider. Nobody asked for these by name: they are not probed.
    pub(super) fn open_catalogue(&mut self, place: &Place, log: &mut Log) {
        for (provider, judged) in self.providers {
            let Some(vendor) = judged.vendor else { continue };
            let names: Vec<String> = self.catalogue.models(vendor).map(str::to_owned).collect();
            if names.len() > CATALOGUE_MODELS_MAX {
                let (many, most) = (names.len(), CATALOGUE_MODELS_MAX);
                let what = format!(
                    "the catalogue knows {many} models of {provider}, more than {most}, so it stays shut for it"
                );
                log.warn(
                    place,
                    format_args!("{what}: name those you want in routes or as [targets.\"{provider}/MODEL\"]"),
                );
                continue;
            }
            for model in names {
                let id = TargetId::of(&judged.provider.id, &model);
                if !self.specs.contains_key(&id) {
                    let known = self.catalogue.find(vendor, &model);
                    let mut quiet = Log::new("", "");
                    let spec = merge(&id, judged, known, None, &mut quiet);
                    self.specs.insert(id, TargetSpec { probes: false, ..spec });
                }
            }
        }
    }

    /// A provider that no target uses would never be called.
    pub(super) fn idle_providers(&self, log: &mut Log) {
        let used: BTreeSet<&str> = self.specs.keys().map(TargetId::provider).collect();
        for (name, judged) in self.providers.iter().filter(|(name, _)| !used.contains(name.as_str())) {
            // With a broken route about, the target that is missing here may be in it.
            if !log.has_error_under("routes") && !log.has_error_under("targets") {
                let remedy = format!(
                    "Add one of its models to a route, or as [targets.\"{name}/MODEL\"], or set server.direct = \"catalogue\""
                );
                log.error(&judged.place, "nothing can reach this provider: no route and no target names it", remedy);
            }
        }
    }
}

/// A target from what the provider, the catalogue and the config say; the config wins.
fn merge(
    id: &TargetId,
    judged: &Judged,
    known: Option<Known>,
    overlay: Option<&TargetFile>,
    log: &mut Log,
) -> TargetSpec {
    let provider = &judged.provider;
    let said = judged.vendor.map(|vendor| catalogue::capabilities(vendor, id.model())).unwrap_or_default();
    let timeouts = overlay.and_then(|overlay| overlay.timeouts.as_ref());
    let context_window = overlay.and_then(|overlay| overlay.context_window.as_ref()).map(|window| window.value);
    let max_output = overlay.and_then(|overlay| overlay.max_output.as_ref());
    let context_window = context_window.or(known.and_then(|known| known.context_window));
    if let (Some(output), Some(window)) = (max_output, context_window)
        && output.value > window
    {
        log.error(
            &output.place,
            format_args!("it is more than the context window of {window}"),
            "Correct one of the two",
        );
    }
    TargetSpec {
        id: id.clone(),
        provider: provider.id.clone(),
        region: provider.region.clone(),
        dialect: provider.kind.dialect(),
        capabilities: abilities(said, overlay),
        context_window,
        max_output: max_output.map(|output| output.value),
        price: overlay.and_then(|overlay| price(overlay.price.as_ref(), log)).or(known.map(|known| known.price)),
        timeouts: providers::timeouts(timeouts, provider.timeouts, log),
        keys: u8::try_from(provider.keys.len()).unwrap_or(u8::MAX).max(1),
        probes: overlay.and_then(|overlay| overlay.probes.as_ref()).map_or(provider.probes, |probes| probes.value),
    }
}

fn abilities(said: Capabilities, overlay: Option<&TargetFile>) -> Capabilities {
    let Some(file) = overlay.and_then(|overlay| overlay.capabilities.as_ref()) else { return said };
    let one = |setting: &Option<At<bool>>, said| match setting {
        Some(At { value: true, .. }) => Ability::Yes,
        Some(At { value: false, .. }) => Ability::No,
        None => said,
    };
    Capabilities {
        tools: one(&file.value.tools, said.tools),
        images: one(&file.value.images, said.images),
        json_schema: one(&file.value.json_schema, said.json_schema),
    }
}

fn price(file: Option<&At<PriceFile>>, log: &mut Log) -> Option<Price> {
    let At { value: file, place } = file?;
    let (Some(input), Some(output)) = (&file.input, &file.output) else {
        if !log.has_error_under(&place.path) {
            log.error(
                place,
                "a price has both `input` and `output`",
                "Add the missing one, in dollars per million tokens",
            );
        }
        return None;
    };
    let all = [Some(input), Some(output), file.cache_read.as_ref(), file.cache_write.as_ref()];
    for dear in all.into_iter().flatten().filter(|price| price.value > 100_000.0) {
        log.error(&dear.place, "more than $100,000 per million tokens is no price", "Write dollars per million tokens");
    }
    let cache = |setting: &Option<At<f64>>| setting.as_ref().map(|price| price.value);
    Some(Price::per_million(input.value, output.value, cache(&file.cache_read), cache(&file.cache_write)))
}
