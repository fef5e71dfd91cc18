//! `outlast demo`: real traffic survives a provider going down, and then going wrong in other ways.
//!
//! Read in this order: [`script`] (what is broken when), [`world`] (three fakes and a gateway in this process),
//! [`traffic`] (the clients, and how they judge what they get), [`tally`] (the numbers), [`screen`] (the live view),
//! [`summary`] (the table at the end); then the scenes on their [`stage`]: [`lesser`] (what a client gets when there is
//! less), [`lasting`] (work that survives; its [`shop`] loses answers). This file plays the script.

mod lasting;
mod lesser;
mod screen;
mod script;
mod shop;
mod stage;
mod summary;
mod tally;
mod traffic;
mod world;

use crate::clock::{self, Clock, MissedTickBehavior};
use outlast_model::Mono;
use screen::{Screen, View};
use script::Script;
use stage::Stage;
use std::{net::SocketAddr, time::Duration};
use tally::Tally;
use traffic::Traffic;
use world::World;

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A line a second even on a terminal.
    pub plain: bool,
    /// A shorter script, for tests.
    pub fast: bool,
    /// The gateway's address; a free port of the loopback if absent.
    pub listen: Option<SocketAddr>,
}

/// How a demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered, or its client told in the stream that it was cut; and what was less was marked.
    Kept,
    /// At least one request was lost, or was not what it was promised to be.
    Lost,
    /// It was interrupted before its end.
    Interrupted,
}

/// How often the targets are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Every so many looks the live view is drawn.
const LOOKS_PER_FRAME: u32 = 4;
/// How long the last requests may take after the script's end. Beyond it they are lost.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// Plays the script once, shows it, and prints what came of it.
///
/// # Errors
/// What could not be started.
pub async fn play(options: Options) -> Result<Ended, String> {
    let script = if options.fast { Script::fast() } else { Script::full() };
    let clock = Clock::start();
    let world = World::start(options.listen).await?;
    let screen = Screen::open(options.plain);
    screen.intro(&world, &script);
    let mut play = Play {
        traffic: Traffic::start(world.address(), script.requests_per_second, clock.clone()),
        tally: Tally::new(&script),
        clock,
        world,
        script,
        screen,
    };
    let interrupted = tokio::select! {
        played = play.all_phases() => { played?; false }
        _ = tokio::signal::ctrl_c() => true,
    };
    play.finish(interrupted).await
}

/// Starts the world and leaves it running until it is interrupted.
///
/// # Errors
/// What could not be started.
pub async fn serve(listen: SocketAddr) -> Result<(), String> {
    let world = World::start(Some(listen)).await?;
    print!("{}", summary::served(&world));
    tokio::signal::ctrl_c().await.map_err(|error| format!("cannot listen for the interrupt: {error}"))?;
    world.stop().await;
    Ok(())
}

/// A script being played.
struct Play {
    world: World,
    script: Script,
    traffic: Traffic,
    tally: Tally,
    screen: Screen,
    clock: Clock,
}

impl Play {
    async fn all_phases(&mut self) -> Result<(), String> {
        let mut end = self.clock.mono();
        for index in 0..self.script.phases.len() {
            let phase = self.script.phases[index];
            self.world.break_primary(phase.fault)?;
            self.traffic.enter(index);
            self.tally.enter(index, self.elapsed());
            self.screen.banner(index, &self.script, self.elapsed());
            end = end + phase.lasts;
            self.watch(index, end).await;
        }
        Ok(())
    }

    /// Since the start.
    fn elapsed(&self) -> Duration {
        self.clock.mono().since(Mono::ZERO)
    }

    /// Watches until the phase is over.
    async fn watch(&mut self, index: usize, end: Mono) {
        let mut looks = clock::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut count = 0u32;
        while self.clock.mono() < end {
            looks.tick().await;
            self.look(index);
            if count.is_multiple_of(LOOKS_PER_FRAME) {
                self.draw(index, self.clock.mono().until(end));
            }
            count += 1;
        }
    }

    /// Takes the results that came and what the engine thinks now.
    fn look(&mut self, index: usize) {
        let now = self.elapsed();
        for done in self.traffic.take() {
            self.tally.done(&done, now);
        }
        self.tally.targets(index, &self.world.targets(), now);
        if self.tally.second_is_over(now) {
            self.tally.lineage(&self.world.records());
            let second = self.tally.next_second();
            self.screen.second(&second, &self.tally);
        }
    }

    fn draw(&mut self, index: usize, left: Duration) {
        let view = View {
            script: &self.script,
            phase: index,
            left,
            elapsed: self.elapsed(),
            targets: &self.world.targets(),
            tally: &self.tally,
        };
        self.screen.draw(&view);
    }

    async fn finish(mut self, interrupted: bool) -> Result<Ended, String> {
        self.world.heal()?;
        if !interrupted {
            self.traffic.finish(LAST_REQUESTS).await;
        }
        for done in self.traffic.take() {
            self.tally.done(&done, self.elapsed());
        }
        if !interrupted {
            self.tally.unanswered(self.traffic.open());
        }
        self.tally.lineage(&self.world.records());
        self.screen.close();
        print!("{}", summary::table(&self.script, &self.tally));
        print!("{}", summary::lost(&self.tally));
        let mut lost = self.tally.total().lost > 0;
        if interrupted {
            self.world.stop().await;
            return Ok(Ended::Interrupted);
        }
        let stage = Stage::new(&self.world, self.clock.clone());
        for (title, scenes) in [
            ("When there is less than everything", lesser::play(&stage).await),
            ("When programs die and answers are lost", lasting::play(&stage).await),
        ] {
            lost |= scenes.iter().any(|scene| scene.seen.is_err());
            print!("{}", summary::scenes(title, &scenes));
        }
        self.world.stop().await;
        print!("{}", summary::NEXT);
        Ok(if lost { Ended::Lost } else { Ended::Kept })
    }
}
