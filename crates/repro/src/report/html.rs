//! `report.html`: one file that needs nothing else, on a screen, a phone, or paper.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Artifact, ArtifactKind, ClaimReport, PaperReport, Report, chart, measured, number};
use crate::claim::{Over, Verdict};
use crate::data::DataSource;
use crate::progress::clock;
use crate::section::{Curve, Table};
use std::time::Duration;

const STYLE: &str = include_str!("style.css");

pub(super) fn render(report: &Report) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Reproduction report: " (report.headline()) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(report))
                    (overview(report))
                    @for paper in &report.papers { (section(paper)) }
                    (colophon(report))
                }
            }
        }
    }
    .into_string()
}

fn head(report: &Report) -> Markup {
    let total = report.claims().count();
    let [reproduced, ..] = Verdict::ALL;
    html! {
        header {
            p.kicker { "Reproduction report" }
            h1 { (report.count(reproduced)) " of " (total) " claims reproduced" }
            p.lede {
                "Tier " strong { (report.tier) } " on " (report.device) ", "
                (clock(Duration::try_from_secs_f64(report.timing.seconds).unwrap_or_default())) " of computing. "
                @match report.tier {
                    crate::Tier::Paper => {}
                    _ => { "Smaller models and data than the papers': the signs of effects are tested here, not the papers' figures." }
                }
            }
            ul.tally {
                @for verdict in Verdict::ALL {
                    @if report.count(verdict) > 0 { li { (report.count(verdict)) " " (pill(verdict)) } }
                }
            }
        }
    }
}

fn overview(report: &Report) -> Markup {
    html! {
        div.wide {
            table.overview {
                thead { tr { th { "Paper" } th { "Claims" } th { "Data" } th.num { "Computing" } } }
                tbody {
                    @for paper in &report.papers {
                        tr {
                            td { a href={ "#" (paper.paper) } { (paper.paper) } }
                            td {
                                span.squares {
                                    @for claim in &paper.claims {
                                        a.square.(class(claim.judged.verdict())) href={ "#" (anchor(paper, claim)) }
                                            title={ (claim.judged.id()) ": " (claim.judged.statement()) " – " (claim.judged.verdict()) } {
                                            span.sr { (claim.judged.id()) " " (claim.judged.verdict()) }
                                        }
                                    }
                                    @if paper.error.is_some() { span.failed { "could not be judged" } }
                                }
                            }
                            td.data {
                                @for (position, data) in paper.data.iter().enumerate() {
                                    @if position > 0 { "; " }
                                    (data.set)
                                    @match data.source {
                                        DataSource::Files => {}
                                        DataSource::Generator => { " " em { "generated" } }
                                        DataSource::Absent => { " " em { "absent" } }
                                    }
                                }
                            }
                            td.num { (seconds(paper.seconds)) }
                        }
                    }
                }
            }
        }
    }
}

fn section(paper: &PaperReport) -> Markup {
    html! {
        section id=(paper.paper) {
            p.kicker { (paper.paper) }
            h2 { (paper.title) }
            p.reference { (paper.reference) }
            p.idea { (paper.idea) }
            @if let Some(error) = &paper.error { p.failed { strong { "Could not be judged. " } (error) } }
            @for note in &paper.notes { p.note { (note) } }
            @if !paper.claims.is_empty() { (claims(paper)) }
            @if !paper.curves.is_empty() {
                div.charts.wide { @for curve in &paper.curves { (figure(curve)) } }
            }
            @for table in &paper.tables { (table_markup(table)) }
            @for (artifact, bytes) in paper.artifacts.iter().zip(&paper.files) { (picture(artifact, bytes)) }
            @if paper.artifacts.iter().any(|artifact| artifact.kind == ArtifactKind::File) {
                p.files {
                    "Beside this page: "
                    @for artifact in paper.artifacts.iter().filter(|artifact| artifact.kind == ArtifactKind::File) {
                        a href=(artifact.path) { (artifact.title) } " "
                    }
                }
            }
            (runs(paper))
        }
    }
}

fn claims(paper: &PaperReport) -> Markup {
    html! {
        div.wide {
            table.claims {
                thead { tr { th { "Claim" } th { "The paper" } th { "Measured here" } th { "Verdict" } } }
                tbody { @for claim in &paper.claims { (claim_row(paper, claim)) } }
            }
            @if let Some(claim) = paper.claims.first() {
                p.fine { "Tier " (claim.tier) ". Data: " (claim.data) "." }
            }
        }
    }
}

fn claim_row(paper: &PaperReport, claim: &ClaimReport) -> Markup {
    let judged = &claim.judged;
    let (value, source) = judged.paper();
    html! {
        tr id=(anchor(paper, claim)) {
            td.claim {
                p.statement { span.id { (judged.id()) } " " (judged.statement()) }
                p.test { (judged.test()) @if !judged.unit().is_empty() { " " (judged.unit()) } }
            }
            td.paper data-label="The paper" {
                @if value.is_empty() { span.fine { "no figure" } } @else { p { (value) } }
                p.fine { (source) }
            }
            td.measured data-label="Measured here" {
                @if judged.mean().is_some() {
                    p { (measured(judged)) }
                    (PreEscaped(chart::interval_plot(judged)))
                    p.fine {
                        @match (judged.test().over, judged.interval()) {
                            (Over::Mean | Over::Every, None) => { "One seed, no interval. " }
                            (Over::Exact, None) => { "One sample, no interval. " }
                            (Over::Mean, Some(_)) => { "95 % interval of the mean. " }
                            (Over::Every | Over::Exact, Some(_)) => { "Range of the samples. " }
                        }
                        "Per seed: "
                        @for (position, (_, sample)) in judged.samples().enumerate() {
                            @if position > 0 { ", " }
                            (number(sample))
                        }
                        @if judged.is_timed() { ". Wall-clock time" }
                    }
                } @else { span.fine { "nothing" } }
            }
            td.verdict data-label="Verdict" {
                (pill(judged.verdict()))
                p.fine { (judged.reason()) }
            }
        }
    }
}

fn figure(curve: &Curve) -> Markup {
    html! {
        figure {
            h3 { (curve.title) }
            p.axis-title { (curve.y.label) }
            (PreEscaped(chart::line_chart(curve)))
            ul.legend {
                @for (position, series) in curve.series.iter().enumerate() {
                    li { (PreEscaped(format!(r#"<svg class="s{}" viewBox="0 0 26 10" aria-hidden="true"><line class="line" x1="1" x2="25" y1="5" y2="5"/><circle cx="13" cy="5" r="3"/></svg>"#, position % 8))) (series.name) }
                }
                @for (position, level) in curve.levels.iter().enumerate() {
                    li { (PreEscaped(format!(r#"<svg viewBox="0 0 26 10" aria-hidden="true"><line class="level l{}" x1="1" x2="25" y1="5" y2="5"/></svg>"#, position % 3))) (level.name) " (" (number(level.y)) ")" }
                }
            }
            figcaption { (curve.caption) }
        }
    }
}

fn table_markup(table: &Table) -> Markup {
    html! {
        div.wide {
            h3 { (table.title) }
            div.scroll tabindex="0" role="region" aria-label=(table.title) {
                table.plain {
                    thead { tr { @for (position, name) in table.header.iter().enumerate() { th.num[position > 0] { (name) } } } }
                    tbody {
                        @for row in &table.rows {
                            tr { @for (position, cell) in row.iter().enumerate() { td.num[position > 0] { (cell) } } }
                        }
                    }
                }
            }
            p.caption { (table.caption) }
        }
    }
}

fn picture(artifact: &Artifact, bytes: &[u8]) -> Markup {
    let media = match artifact.kind {
        ArtifactKind::Png => "image/png",
        ArtifactKind::Svg => "image/svg+xml",
        ArtifactKind::File => return html! {},
    };
    html! {
        figure.picture {
            h3 { (artifact.title) }
            img alt=(artifact.alt) src={ "data:" (media) ";base64," (STANDARD.encode(bytes)) };
            figcaption { (artifact.caption) }
        }
    }
}

fn runs(paper: &PaperReport) -> Markup {
    let unfinished = || paper.runs.iter().filter(|run| run.reason.is_some());
    html! {
        @for run in unfinished() {
            div.failed {
                p { strong { "Run " code { (run.id) } " " (run.status) "." } " " (run.kind) ", seed " (run.seed) ": " (run.reason.as_deref().unwrap_or_default()) }
                @if !run.log_tail.is_empty() { pre { (run.log_tail) } }
            }
        }
        @if !paper.runs.is_empty() {
            details {
                summary { (paper.runs.len()) " runs" }
                div.scroll tabindex="0" role="region" aria-label={ "Runs of " (paper.paper) } {
                    table.plain {
                        thead { tr { th { "Run" } th { "Method" } th.num { "Seed" } th { "Status" } } }
                        tbody {
                            @for run in &paper.runs {
                                tr { td { code { (run.id) } } td { (run.kind) } td.num { (run.seed) } td { (run.status) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn colophon(report: &Report) -> Markup {
    let machine = &report.machine;
    html! {
        section.colophon {
            h2 { "Run it again" }
            pre { (report.command) }
            p {
                "Every number above is read from " code { "runs/" } ", one folder a run, named by the hash of its description. "
                "Finished runs are not computed twice; a killed one goes on from its last checkpoint. The same command on the same "
                "machine gives the same metrics, timings aside."
            }
            h2 { "How verdicts come about" }
            p {
                "A claim is an inequality. Arms of an experiment share seeds, and differences are taken seed by seed. A claim about "
                "a mean is " (pill_name(0)) " when the whole 95 % t-interval satisfies the inequality, " (pill_name(1))
                " when none of it does, and " (pill_name(2)) " when it crosses the line or only one seed was run. A claim about every seed "
                "is refuted by one counter-example and needs two seeds; one about an exact property, which no seed decides, needs one "
                "sample. Where a run is missing, nothing is " (pill_name(0)) ". A claim that is " (pill_name(3))
                " names what it would need. No verdict is typed in."
            }
            h2 { "Environment" }
            dl {
                dt { "Commit" } dd { code { (report.commit.as_deref().unwrap_or("unknown")) } }
                dt { "Machine" } dd {
                    (machine)
                    @if let Some(mib) = machine.memory_mib { ", " (mib.div_ceil(1024)) " GiB" }
                }
                @for line in report.elsewhere() { dt { "Runs" } dd { (line) } }
                dt { "Device" } dd { (report.device) ", one thread a worker" }
                @for (name, version) in &report.versions { dt { (name) } dd { (version) } }
            }
        }
    }
}

fn anchor(paper: &PaperReport, claim: &ClaimReport) -> String {
    format!("{}-{}", paper.paper, claim.judged.id())
}

fn class(verdict: Verdict) -> String {
    verdict.as_str().replace(' ', "-")
}

fn pill(verdict: Verdict) -> Markup {
    html! { span.pill.(class(verdict)) { (verdict) } }
}

fn pill_name(position: usize) -> Markup {
    html! { em { (Verdict::ALL[position]) } }
}

fn seconds(seconds: f64) -> String {
    clock(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
