//! Tables and the curve of the report.

use super::super::network::{Head, Pool};
use super::super::page::LAYERS;
use super::{Of, Pair, percent};
use crate::Results;
use crate::section::{Axis, Curve, Point, Series, Table, cell};

/// Pools with global average pooling that differ in the size of their blur, and Zhang's consistencies in percent.
const SIZES: [(Pool, &str); 5] = [
    (Pool::Max, "85.11"),
    (Pool::Blur(2), "86.90"),
    (Pool::Blur(3), "87.51"),
    (Pool::Blur(4), "88.07"),
    (Pool::Blur(5), "88.25"),
];

/// What blur pools change, and by how much accuracies differ meanwhile.
pub(super) fn pairs(pairs: &[&Pair]) -> anyhow::Result<Table> {
    let header = [
        "head",
        "accuracy, test images, centre, difference in points",
        "local drop (1 px), ratio",
        "local drop (2 px), ratio",
        "global drop, centre anchor, ratio",
        "global drop, three anchors, ratio",
        "P(top-1 change), difference",
        "circular consistency, difference in points",
    ];
    let rows = pairs.iter().map(|pair| {
        anyhow::Ok(vec![
            pair.head.to_owned(),
            cell(&percent(pair.difference("accuracy_centre")?).values(), 1),
            cell(&pair.ratio("local_drop")?.values(), 2),
            cell(&pair.ratio("local_drop_2")?.values(), 2),
            cell(&pair.ratio("global_drop")?.values(), 2),
            cell(&pair.global_ratio()?.values(), 2),
            cell(&pair.difference("top1_change")?.values(), 3),
            cell(&percent(pair.difference("consistency")?).values(), 1),
        ])
    });
    Ok(Table {
        title: "Blurred beside plain networks".into(),
        caption: "Blur 4 / max, or blur 4 − max, of equal seeds; mean ± half width of the 95 % interval over seeds. Rolls of at most 3 px \
                  wrap no object around the frame, are the shifts of training, and leave out residues 3 and 4 of the total stride of 8."
            .into(),
        header: header.map(str::to_owned).into(),
        rows: rows.collect::<anyhow::Result<_>>()?,
    })
}

/// Consistency by size of the blur.
pub(super) fn sizes(results: &Results) -> anyhow::Result<Table> {
    let consistency = |pool| Of { results, head: Head::Average, pool }.get("consistency");
    let plain = consistency(Pool::Max)?;
    let rows = SIZES.iter().map(|&(pool, zhang)| {
        let own = consistency(pool)?;
        let gain = if pool == Pool::Max { "–".to_owned() } else { cell(&percent(own.minus(&plain)).values(), 1) };
        let seeds = own.seeds().len().to_string();
        anyhow::Ok(vec![pool.label(), seeds, cell(&percent(own).values(), 1), gain, zhang.into()])
    });
    Ok(Table {
        title: "Consistency by size of the blur".into(),
        caption: "Global average pooling; share of test images with equal predictions under two circular rolls of at most 3 px, which wrap no \
                  object, are the shifts of training and leave out residues 3 and 4 of the total stride of 8; mean ± half \
                  width of the 95 % interval over seeds, and differences of equal seeds: sizes of three seeds and of six compare by no \
                  more than that. Zhang's figures (antialiased-cnns, README) are of \
                  random crops of ImageNet images: their order may be compared with ours, not their size."
            .into(),
        header: ["pool", "seeds", "circular consistency, %", "− max, points", "Zhang, ResNet-18, crops, %"]
            .map(str::to_owned)
            .into(),
        rows: rows.collect::<anyhow::Result<_>>()?,
    })
}

/// A row a network of `columns`: their titles, metrics and decimals.
fn table(title: &str, caption: &str, columns: &[(&str, &str, usize)], nets: &[Of]) -> anyhow::Result<Table> {
    let mut header = vec!["head, pool".to_owned()];
    header.extend(columns.iter().map(|column| column.0.to_owned()));
    let rows = nets.iter().map(|net| {
        let mut row = vec![net.label()];
        for &(_, metric, decimals) in columns {
            row.push(cell(&net.get(metric)?.values(), decimals));
        }
        anyhow::Ok(row)
    });
    Ok(Table { title: title.into(), caption: caption.into(), header, rows: rows.collect::<anyhow::Result<_>>()? })
}

pub(super) fn overview(nets: &[Of]) -> anyhow::Result<Table> {
    let columns = [
        ("accuracy, test images, centre", "accuracy_centre", 3),
        ("accuracy, objects, centre", "accuracy_centre_objects", 3),
        ("accuracy, objects, frame", "accuracy_grid", 3),
        ("local drop (1)", "local_drop", 5),
        ("global drop", "global_drop", 4),
        ("jaggedness", "jaggedness", 5),
        ("P(top-1 change)", "top1_change", 3),
        ("MAC", "mean_absolute_change", 4),
        ("circular consistency", "consistency", 3),
        ("largest change under rolls", "roll_change", 6),
        ("mean from TL", "mean_TL", 4),
        ("mean from BR", "mean_BR", 4),
        ("top/bottom, left out", "top_bottom_left_out", 3),
        ("top/bottom, published folds", "top_bottom", 3),
        ("left/right, left out", "left_right_left_out", 3),
        ("arithmetic", "arithmetic", 4),
    ];
    let caption = "Means over test objects of the 128-d feature, centre anchor; shares from 0 to 1; mean ± half width of the 95 % interval \
                   over seeds. The accuracy of objects is that of the few moved ones, at the centre and over the whole frame.";
    table("Where invariance is lost: head, borders, aliasing", caption, &columns, nets)
}

pub(super) fn structure(nets: &[Of]) -> anyhow::Result<Table> {
    let columns = [
        ("repetition at 8 px", "repetition", 3),
        ("lower end over objects", "repetition_low", 3),
        ("power at 8 px", "spectrum_8", 3),
        ("power at 4 px", "spectrum_4", 3),
        ("power at 2 px", "spectrum_2", 3),
    ];
    let caption = "Of the differences along rows of the map to the centre, means over test objects. Power: the share that a wave of this \
                   period explains; in random order they have about .15 at 8 and at 4 px and .08 at 2 px. 0 for a map without differences.";
    table("Does what varies repeat with the strides?", caption, &columns, nets)
}

pub(super) fn layers(nets: &[Of]) -> anyhow::Result<Table> {
    let mut header = vec!["head, pool".to_owned()];
    header.extend(LAYERS.iter().map(|layer| format!("{layer}: local / global")));
    let rows = nets.iter().map(|net| {
        let mut row = vec![net.label()];
        for layer in LAYERS {
            let drop = |kind: &str| anyhow::Ok(cell(&net.get(&format!("{kind}_drop_{layer}"))?.values(), 5));
            row.push(format!("{} / {}", drop("local")?, drop("global")?));
        }
        anyhow::Ok(row)
    });
    Ok(Table {
        title: "Layer by layer".into(),
        caption:
            "Local drop (1 px) and global drop of each layer's feature (means over places for stages), centre anchor."
                .into(),
        header,
        rows: rows.collect::<anyhow::Result<_>>()?,
    })
}

pub(super) fn profile(nets: &[Of]) -> anyhow::Result<Curve> {
    // The anchor is at row 9 of 21: 11 steps to the far edge.
    let distances = 0..=11;
    let mut series = Vec::new();
    for net in nets {
        let mut points = Vec::new();
        for distance in distances.clone() {
            let values = net.get(&format!("profile_{distance}"))?.values();
            points.extend(Point::of(distance as f64, &values));
        }
        series.push(Series { name: net.label(), points });
    }
    Ok(Curve {
        title: "How far an object can move".into(),
        caption: "Mean cosine of the feature with that at the centre, by Chebyshev distance; bands are 95 % intervals over seeds.".into(),
        x: Axis::linear("distance, px"),
        y: Axis::linear("cosine"),
        series,
        levels: Vec::new(),
    })
}
