//! The screen: nodes, flow, messages, and what the sink receives.

use std::io;

use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use serde_json::Value;

use super::stage::Stage;

/// Lines for messages, the frame included.
const MESSAGES_HEIGHT: u16 = 8;

/// The terminal in raw mode; restored on drop.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over. A panic gives it back too.
    ///
    /// # Errors
    /// It isn't a terminal, or can't do this.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init()? })
    }

    /// Draws everything anew.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn draw(&mut self, stage: &mut Stage) -> io::Result<()> {
        stage.enter_screen();
        self.terminal.draw(|frame| draw(frame, stage)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn draw(frame: &mut Frame, stage: &Stage) {
    let nodes_height = u16::try_from(stage.nodes.len()).unwrap_or(u16::MAX).saturating_add(3);
    let [nodes, flow, messages, sink, keys] = Layout::vertical([
        Constraint::Length(nodes_height),
        Constraint::Length(3),
        Constraint::Length(MESSAGES_HEIGHT),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(node_table(stage), nodes);
    frame.render_widget(flow_line(stage), flow);
    let room = usize::from(MESSAGES_HEIGHT) - 2;
    let lines: Vec<&str> = stage.messages().flat_map(str::lines).collect();
    frame.render_widget(newest("messages", &lines, room), messages);
    let room = usize::from(sink.height.saturating_sub(2));
    let lines: Vec<String> = stage.sink.newest(room).map(event_line).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    frame.render_widget(newest("the file sink receives", &lines, room), sink);
    let help = " k kill the leader   r restart what is dead   q quit";
    frame.render_widget(Line::styled(help, Style::new().add_modifier(Modifier::DIM)), keys);
}

fn node_table(stage: &Stage) -> Table<'static> {
    let rows: Vec<Row> = stage
        .nodes
        .iter()
        .zip(stage.urls())
        .map(|(process, url)| {
            let node = stage.facts.node(url).cloned().unwrap_or_default();
            let (role, style) = match (process.pid(), node.role.as_str()) {
                (None, _) => ("dead".to_owned(), Style::new().fg(Color::Red)),
                (_, "leader") => (node.role, Style::new().fg(Color::Green)),
                _ => (node.role, Style::new()),
            };
            let pid = process.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            Row::new([
                process.name().to_owned(),
                url.clone(),
                role,
                node.term.to_string(),
                node.applied_index.to_string(),
                pid,
            ])
            .style(style)
        })
        .collect();
    let widths = [
        Constraint::Length(10),
        Constraint::Length(26),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(12),
        Constraint::Length(10),
    ];
    let header = Row::new(["node", "address", "role", "term", "applied", "pid"])
        .style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths).header(header).block(Block::bordered().title(" peat-gateway dev "))
}

fn flow_line(stage: &Stage) -> Paragraph<'static> {
    let rates = stage.facts.rates();
    let (mesh, journal, sink) = stage.facts.totals();
    let text = format!(
        "mesh {:.0}/s ({mesh})  →  journal {:.0}/s ({journal})  →  sink {:.0}/s ({sink})",
        rates.mesh, rates.journal, rates.sink
    );
    Paragraph::new(text).block(Block::bordered().title(" changes "))
}

/// What a person wants to see of a sink's line first: position, document, kind, and what changed.
fn event_line(line: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(line) else {
        return line.to_owned();
    };
    format!(
        "{:>8}  {:<28} {:<9} {}",
        event["sequence"].as_u64().unwrap_or_default(),
        event["document_id"].as_str().unwrap_or_default(),
        event["kind"].as_str().unwrap_or_default(),
        event["patches"]
    )
}

/// The newest lines that fit. Documents come from strangers: nothing in them moves the cursor.
fn newest(title: &str, lines: &[&str], room: usize) -> Paragraph<'static> {
    let lines: Vec<Line> = lines
        .iter()
        .skip(lines.len().saturating_sub(room))
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>().into())
        .collect();
    Paragraph::new(lines).block(Block::bordered().title(format!(" {title} ")))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn an_event_is_shown_by_what_changed_and_other_lines_as_they_are() {
        let line =
            r#"{"org_id":"o","document_id":"tracks:1","kind":"change","sequence":7,"patches":[1]}"#;
        assert_eq!(
            event_line(line).split_whitespace().collect::<Vec<_>>(),
            ["7", "tracks:1", "change", "[1]"]
        );
        assert_eq!(event_line("torn {"), "torn {");
    }

    #[test]
    fn the_newest_lines_are_shown_and_control_characters_are_not() {
        let mut terminal = Terminal::new(TestBackend::new(20, 4)).unwrap();
        let lines = ["old", "newer", "new\u{1b}[2Jest"];
        terminal.draw(|frame| frame.render_widget(newest("t", &lines, 2), frame.area())).unwrap();
        let shown: String =
            terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        assert!(shown.contains("newer") && shown.contains("new[2Jest"), "{shown}");
        assert!(!shown.contains("old"), "{shown}");
    }
}
