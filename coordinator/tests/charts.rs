//! Forecasts in the terminal: a table for all, charts for the busiest.

use crate::fixtures::*;
use crate::stub::*;

#[test]
fn the_table_speaks_in_rates() {
    let text = ask(&["forecasts"], Reply::json(json(&vec![forecast("new-york", 1.0)]))).ok();
    let wanted = "\
FROM      TO       SERVICE/TYPE  SEEN  NEXT     NEXT 90 %  PEAK P95  AT (UTC)  LOSS/NAIVE  COVERAGE  MODEL           AGE
new-york  chicago  checkout/buy  59.0  60.0  50.0 to 70.0      70.0  05:00           0.61      91 %  holt-winters  1.5 s
";
    assert!(text.starts_with(wanted), "{text}");
    assert!(!text.contains('⠒'), "no chart where nobody looks");
    assert!(ask(&["forecasts"], Reply::json("[]")).ok().starts_with("No forecasts:"));
}

#[test]
fn the_busiest_three_are_drawn() {
    let text = ask(&["forecasts", "--chart"], Reply::json(json(&forecasts()))).ok();
    let drawn: Vec<&str> = text.lines().filter(|line| line.contains(" > ")).collect();
    assert_eq!(
        drawn,
        ["denver", "houston", "seattle"].map(|from| format!("{from} > chicago  default/checkout/buy")),
        "by volume, highest first"
    );
    assert!(text.ends_with("The busiest 3 are drawn. For 1 chart more: --from, --to, --type.\n"), "{text}");
}

#[test]
fn a_chart_has_honest_axes_and_marks_where_the_forecast_begins() {
    let text = ask(&["forecasts", "--chart"], Reply::json(json(&vec![forecast("new-york", 1.0)]))).ok();
    let chart: Vec<&str> = text.lines().skip_while(|line| !line.contains(" > ")).collect();
    assert!(chart[1].starts_with("transactions/s by holt-winters, every 1 min"), "{text}");
    assert!(chart[1].ends_with("░ 90 % of outcomes"), "{text}");
    // The scale begins at zero and ends above the highest value, 70.
    assert!(chart[2].starts_with("80.0 ┤"), "{text}");
    assert!(chart[6].starts_with("40.0 ┤"), "{text}");
    assert!(chart[10].trim_start().starts_with("0 └"), "{text}");
    let times = chart[11];
    assert!(times.trim_start().starts_with("04:00") && times.contains("05:00") && times.ends_with("05:29 UTC"), "{text}");
    // History rises from the lower left corner; the band is only right of the boundary, from 50 to 70.
    let boundary = chart[10].chars().enumerate().filter(|(_, c)| *c == '┴').nth(1).unwrap().0;
    let shaded = |line: &str| line.chars().enumerate().filter(|(_, c)| *c == '░').map(|(i, _)| i).collect::<Vec<_>>();
    for (i, line) in chart[2..10].iter().enumerate() {
        assert!(shaded(line).iter().all(|column| *column >= boundary), "{text}");
        // Rows stand for 80-70, 70-60, 60-50, and so on; the median, at 60, lies over the third.
        assert_eq!(!shaded(line).is_empty(), i == 1, "row {i}: {text}");
    }
    let braille = |c: &char| ('\u{2801}'..='\u{28ff}').contains(c);
    assert!(chart[4].chars().skip(boundary).filter(braille).count() >= 25, "{text}");
    assert!(chart[9].chars().nth(6).is_some_and(|c| braille(&c)), "{text}");
    assert!(chart[2].chars().filter(braille).count() == 0, "nothing reaches the top: {text}");
}

#[test]
fn a_chart_fits_the_width_that_there_is() {
    let body = json(&vec![forecast("new-york", 1.0)]);
    for columns in ["40", "60", "1000", "1"] {
        let stub = Stub::answering(Reply::json(body.clone()));
        let child = tradewind(&["forecasts", "--chart", "--agent", &stub.url()]).env("COLUMNS", columns).spawn().unwrap();
        let text = finish(child).ok();
        let chart = text.lines().skip_while(|line| !line.contains(" > ")).skip(2);
        let widest = chart.map(|line| line.chars().count()).max().unwrap();
        let allowed = columns.parse::<usize>().unwrap().clamp(24, 110);
        assert!(widest <= allowed && widest + 4 >= allowed.min(103), "{columns} columns, drawn {widest}: {text}");
    }
}

#[test]
fn odd_series_are_drawn_without_a_panic() {
    let mut flat = forecast("a", 4.0);
    flat.recent.clear();
    let mut none = forecast("b", 3.0);
    none.recent = vec![0.0];
    let mut huge = forecast("c", 2.0);
    huge.recent = vec![f64::MAX, 0.0, 1e-300];
    let mut many = forecast("d", 5.0);
    many.recent = (0..5_000).map(f64::from).collect();
    for view in [flat, none, huge, many] {
        let text = ask(&["forecasts", "--chart"], Reply::json(json(&vec![view]))).ok();
        assert!(text.contains('└'), "{text}");
    }
}

#[test]
fn an_explanation_tells_path_weights_errors_coverage_age_events_and_silence() {
    let stub = Stub::answering(Reply::json(json(&explanations())));
    let arguments = ["explain", "new-york", "chicago", "checkout", "--type", "buy", "--tenant", "default", "--agent", &stub.url()];
    let text = finish(tradewind(&arguments).spawn().unwrap()).ok();
    let asked = stub.request();
    assert!(asked.contains("/v1/forecasts/explain?from=new-york&to=chicago&service=checkout&type=buy&tenant=default"), "{asked}");
    for wanted in [
        "new-york > chicago  default/checkout/buy",
        "made by new-york 1.5 s ago, best expert holt-winters, a model of 200 steps (0.1 seasons), those of all series trained 60 steps ago",
        "over the last 200 steps: loss 0.61 of seasonal naive's, 90 % interval held 91 %",
        "event spring-sale of chicago: x3.00 (90 %: 2.00 to 4.50)",
        "05:00         1       60.0  50.0 to 70.0",
        "    1     199      2.00      4.00      88 %  holt-winters 75 %, last-value 25 %",
        "    8       0         -         -         -  holt-winters 75 %, last-value 25 %",
        "   24     176      5.00      4.00      88 %  holt-winters 75 %, last-value 25 %",
        "silent: seasonal-naive: has seen 200 of the 2880 steps that it needs",
        "Published by denver: ask its agent for the reasons.",
    ] {
        assert!(text.contains(wanted), "{wanted:?} in\n{text}");
    }
    let drawn = ask(&["explain", "a", "b", "--chart"], Reply::json(json(&explanations()))).ok();
    assert!(drawn.contains('░') && drawn.contains("silent: "), "{drawn}");
    let yaml = ask(&["explain", "a", "b", "-o", "yaml"], Reply::json(json(&explanations()))).ok();
    assert!(yaml.contains("silent: has seen 200") && yaml.contains("seasonal_naive_error: 240"), "{yaml}");
    let missing = problem(404, "not-found", "from new-york forecasts go to: chicago");
    let reply = Reply::Whole { status: "404 Not Found", content_type: "application/problem+json", body: json(&missing) };
    assert!(ask(&["explain", "new-york", "mars"], reply).failed(1).contains("from new-york forecasts go to: chicago"));
}
