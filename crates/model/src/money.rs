//! Money in whole nano-dollars; prices in pico-dollars a token. Integers, so that sums are exact.

use crate::turn::Usage;
use serde::{Deserialize, Serialize};
use std::{fmt, iter::Sum, ops::Add};

/// An amount in nano-dollars. Saturates at 18 billion dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(u64);

impl Usd {
    /// Nothing.
    pub const ZERO: Usd = Usd(0);

    /// From nano-dollars.
    pub const fn from_nanos(nanos: u64) -> Self {
        Usd(nanos)
    }

    /// From dollars, rounded up to the next nano-dollar; negative and NaN become zero.
    pub fn from_dollars(dollars: f64) -> Self {
        Usd((dollars * 1e9).ceil() as u64)
    }

    /// In nano-dollars.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// In dollars, for showing.
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add for Usd {
    type Output = Usd;

    fn add(self, other: Usd) -> Usd {
        Usd(self.0.saturating_add(other.0))
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Usd>>(iter: I) -> Usd {
        iter.fold(Usd::ZERO, Add::add)
    }
}

impl fmt::Display for Usd {
    /// Six decimals: a thousandth of a cent is still visible.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.as_dollars())
    }
}

impl Serialize for Usd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_dollars())
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(|dollars| Usd((dollars * 1e9).round() as u64))
    }
}

/// What a target charges, in pico-dollars a token ($1 per million tokens is 1,000,000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Input tokens that were not cached.
    pub input: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Input tokens read from the provider's cache.
    pub cache_read: u64,
    /// Input tokens written to the provider's cache.
    pub cache_write: u64,
}

impl Price {
    /// From dollars per million tokens; a missing cache price is the input price.
    pub fn per_million(input: f64, output: f64, cache_read: Option<f64>, cache_write: Option<f64>) -> Self {
        let picos = |dollars: f64| (dollars * 1e6).round() as u64;
        Price {
            input: picos(input),
            output: picos(output),
            cache_read: picos(cache_read.unwrap_or(input)),
            cache_write: picos(cache_write.unwrap_or(input)),
        }
    }

    /// The cost of one reply, rounded up to the next nano-dollar.
    pub fn cost(&self, usage: &Usage) -> Usd {
        let fresh = usage.input_tokens.saturating_sub(usage.cache_read_tokens).saturating_sub(usage.cache_write_tokens);
        let picos = [
            (fresh, self.input),
            (usage.cache_read_tokens, self.cache_read),
            (usage.cache_write_tokens, self.cache_write),
            (usage.output_tokens, self.output),
        ]
        .iter()
        .fold(0u64, |sum, (tokens, price)| sum.saturating_add(u64::from(*tokens).saturating_mul(*price)));
        Usd(picos.div_ceil(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_charged_once_at_their_own_price() {
        let price = Price::per_million(3.0, 15.0, Some(0.3), Some(3.75));
        let usage = Usage {
            input_tokens: 1000,
            output_tokens: 100,
            cache_read_tokens: 600,
            cache_write_tokens: 100,
            ..Usage::default()
        };
        // 300 x 3 + 600 x 0.3 + 100 x 3.75 + 100 x 15 micro-dollars
        assert_eq!(price.cost(&usage), Usd::from_nanos(900_000 + 180_000 + 375_000 + 1_500_000));
    }

    #[test]
    fn a_fraction_of_a_nano_dollar_rounds_up() {
        let price = Price { input: 1, ..Price::default() };
        assert_eq!(price.cost(&Usage { input_tokens: 1, ..Usage::default() }), Usd::from_nanos(1));
    }
}
