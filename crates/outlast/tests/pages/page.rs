//! A page, taken apart so that it can be put together again byte for byte.

/// A page.
pub(crate) struct Page {
    pub(crate) blocks: Vec<Block>,
}

/// A part of a page.
pub(crate) enum Block {
    /// Whatever is not run, fences included.
    Prose(String),
    /// A file, by the name in the fence's info string.
    File { name: String, text: String },
    /// Commands and what they print.
    Console(Vec<Step>),
}

/// One command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    /// As typed, with its line breaks, without the `$ `.
    pub(crate) typed: String,
    /// What it prints, lines joined by line breaks.
    pub(crate) shown: String,
}

impl Step {
    /// `# a moment later` above it: it is repeated until it prints what the page shows.
    pub(crate) fn waits(&self) -> bool {
        self.typed.starts_with("# a moment later\n")
    }

    /// Without the comment above it.
    pub(crate) fn command(&self) -> &str {
        self.typed.trim_start_matches("# a moment later\n")
    }
}

impl Page {
    pub(crate) fn read(text: &str) -> Page {
        let mut blocks = Vec::new();
        let mut prose = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let info: Vec<&str> =
                line.strip_prefix("```").map(|info| info.split_whitespace().collect()).unwrap_or_default();
            let name = match info[..] {
                ["console"] => None,
                ["toml" | "json", name] => Some(name),
                _ => {
                    prose += line;
                    prose.push('\n');
                    continue;
                }
            };
            blocks.push(Block::Prose(std::mem::take(&mut prose)));
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(match name {
                Some(name) => Block::File { name: name.into(), text: body.join("\n") + "\n" },
                None => Block::Console(steps(&body)),
            });
        }
        blocks.push(Block::Prose(prose));
        Page { blocks }
    }

    pub(crate) fn write(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            match block {
                Block::Prose(prose) => text += prose,
                Block::File { name, text: body } => {
                    let kind = name.rsplit('.').next().unwrap_or_default();
                    text += &format!("```{kind} {name}\n{body}```\n");
                }
                Block::Console(steps) => {
                    text += "```console\n";
                    for step in steps {
                        let (comment, command) =
                            if step.waits() { ("# a moment later\n", step.command()) } else { ("", &*step.typed) };
                        text += &format!("{comment}$ {command}\n");
                        if !step.shown.is_empty() {
                            text += &format!("{}\n", step.shown);
                        }
                    }
                    text += "```\n";
                }
            }
        }
        text
    }
}

/// A command goes on over lines as long as a quote is open or a line ends in `\`.
fn steps(lines: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = lines.iter().copied().peekable();
    let mut comment = "";
    while let Some(line) = lines.next() {
        if line == "# a moment later" {
            comment = "# a moment later\n";
            continue;
        }
        let Some(first) = line.strip_prefix("$ ") else {
            let step = steps.last_mut().expect("a console block begins with a command");
            step.shown = if step.shown.is_empty() { line.into() } else { format!("{}\n{line}", step.shown) };
            continue;
        };
        let mut typed = first.to_owned();
        while typed.matches('\'').count() % 2 == 1 || typed.ends_with('\\') {
            typed = format!("{typed}\n{}", lines.next().expect("a command that ends"));
        }
        steps.push(Step { typed: std::mem::take(&mut comment).to_owned() + &typed, shown: String::new() });
    }
    steps
}
