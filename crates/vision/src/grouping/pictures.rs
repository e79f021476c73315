//! Pictures for people: what each group looks at, and who is near whom.

use super::{Error, Neighbours, Result};
use image::{ImageEncoder, Rgb, RgbImage};
use tch::{Device, Kind, Tensor};

/// Pixels between the cells of a sheet.
const GAP: u32 = 2;
const BACKGROUND: Rgb<u8> = Rgb([255, 255, 255]);
const SAME_CLASS: Rgb<u8> = Rgb([38, 150, 80]);
const OTHER_CLASS: Rgb<u8> = Rgb([205, 60, 50]);

/// A PNG with a row an image: the image, then for each group the image darkened where the group does not look. `images` is
/// `[n, 1 or 3, height, width]` in `[0, 1]`, `attention` `[n, groups, h, w]`. Each map is scaled to its own largest value.
/// Images are enlarged `zoom` times.
///
/// # Errors
/// Shapes that do not fit each other, no image, no group, a zoom outside 1 to 16.
pub fn attention_sheet(images: &Tensor, attention: &Tensor, zoom: u32) -> Result<Vec<u8>> {
    let images = Cells::new(images, zoom)?;
    let size = attention.size();
    let &[count, groups, rows, columns] = size.as_slice() else {
        return Err(Error::shape("attention", "[n, groups, h, w]", format!("{size:?}")));
    };
    if count as usize != images.count {
        return Err(Error::shape("attention", format!("{} images", images.count), format!("{count} images")));
    }
    if groups < 1 || rows < 1 || columns < 1 {
        return Err(Error::Empty("attention"));
    }
    let (height, width) = (images.height as i64, images.width as i64);
    let maps = attention.detach().to_device(Device::Cpu).to_kind(Kind::Float);
    let maps = maps.f_upsample_bilinear2d([height, width], false, None, None)?;
    let maps = &maps / maps.amax([2_i64, 3].as_slice(), true).clamp_min(1e-12);
    let weights = host(&maps)?;
    let mut sheet = Sheet::new(&images, images.count, groups as usize + 1);
    let pixels = images.height * images.width;
    for row in 0..images.count {
        sheet.paste(&images, row, [row, 0], |_| 1.0, None);
        for group in 0..groups as usize {
            let map = &weights[(row * groups as usize + group) * pixels..][..pixels];
            // A fifth of the light stays everywhere, so that one sees what the group passes over.
            sheet.paste(&images, row, [row, group + 1], |pixel| 0.2 + 0.8 * map[pixel], None);
        }
    }
    sheet.encode()
}

/// A PNG with a row a query: the query, then its `k` nearest, framed green when of its class and red otherwise. Positions in
/// `neighbours` are positions in `images`, `[n, 1 or 3, height, width]` in `[0, 1]`.
///
/// # Errors
/// Shapes that do not fit, a query or a neighbour that is not there, a zoom outside 1 to 16.
pub fn neighbour_sheet(
    images: &Tensor,
    labels: &[i64],
    neighbours: &Neighbours,
    queries: &[usize],
    zoom: u32,
) -> Result<Vec<u8>> {
    let images = Cells::new(images, zoom)?;
    if labels.len() != images.count || neighbours.queries() != images.count {
        let found = format!("{} labels, neighbours of {}", labels.len(), neighbours.queries());
        return Err(Error::shape("labels and neighbours", format!("one each of {} images", images.count), found));
    }
    if let Some(outside) = queries.iter().find(|query| **query >= images.count) {
        return Err(Error::setting("queries", format!("positions below {}", images.count), outside));
    }
    let mut sheet = Sheet::new(&images, queries.len(), neighbours.k() + 1);
    for (row, &query) in queries.iter().enumerate() {
        sheet.paste(&images, query, [row, 0], |_| 1.0, None);
        for (column, &position) in neighbours.of(query).0.iter().enumerate() {
            let position = position as usize;
            if position >= images.count {
                return Err(Error::setting("neighbours", format!("positions below {}", images.count), position));
            }
            let frame = if labels[position] == labels[query] { SAME_CLASS } else { OTHER_CLASS };
            sheet.paste(&images, position, [row, column + 1], |_| 1.0, Some(frame));
        }
    }
    sheet.encode()
}

/// Images on the host, to be enlarged.
struct Cells {
    values: Vec<f32>,
    count: usize,
    channels: usize,
    height: usize,
    width: usize,
    zoom: u32,
}

impl Cells {
    fn new(images: &Tensor, zoom: u32) -> Result<Self> {
        let size = images.size();
        let &[count, channels @ (1 | 3), height, width] = size.as_slice() else {
            return Err(Error::shape("images", "[n, 1 or 3, height, width]", format!("{size:?}")));
        };
        if count == 0 || height == 0 || width == 0 {
            return Err(Error::Empty("images"));
        }
        if !(1..=16).contains(&zoom) {
            return Err(Error::setting("zoom", "1 to 16", zoom));
        }
        let values = host(&images.detach().to_device(Device::Cpu).to_kind(Kind::Float))?;
        let [count, channels, height, width] = [count, channels, height, width].map(|length| length as usize);
        Ok(Self { values, count, channels, height, width, zoom })
    }

    fn value(&self, image: usize, channel: usize, pixel: usize) -> f32 {
        let plane = image * self.channels + channel.min(self.channels - 1);
        self.values[plane * self.height * self.width + pixel]
    }
}

struct Sheet {
    picture: RgbImage,
    cell: [u32; 2],
}

impl Sheet {
    fn new(cells: &Cells, rows: usize, columns: usize) -> Self {
        let cell = [cells.height as u32 * cells.zoom + 2 * GAP, cells.width as u32 * cells.zoom + 2 * GAP];
        Self { picture: RgbImage::from_pixel(columns as u32 * cell[1], rows as u32 * cell[0], BACKGROUND), cell }
    }

    fn paste(
        &mut self,
        cells: &Cells,
        image: usize,
        [row, column]: [usize; 2],
        light: impl Fn(usize) -> f32,
        frame: Option<Rgb<u8>>,
    ) {
        let [top, left] = [row as u32 * self.cell[0], column as u32 * self.cell[1]];
        if let Some(colour) = frame {
            for y in 0..self.cell[0] {
                for x in 0..self.cell[1] {
                    self.picture.put_pixel(left + x, top + y, colour);
                }
            }
        }
        for y in 0..cells.height as u32 * cells.zoom {
            for x in 0..cells.width as u32 * cells.zoom {
                let pixel = (y / cells.zoom) as usize * cells.width + (x / cells.zoom) as usize;
                let light = light(pixel);
                let byte = |channel| (cells.value(image, channel, pixel) * light * 255.0).round() as u8;
                self.picture.put_pixel(left + GAP + x, top + GAP + y, Rgb([byte(0), byte(1), byte(2)]));
            }
        }
    }

    fn encode(self) -> Result<Vec<u8>> {
        let (width, height) = self.picture.dimensions();
        let mut bytes = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        encoder.write_image(self.picture.as_raw(), width, height, image::ExtendedColorType::Rgb8)?;
        Ok(bytes)
    }
}

fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    let mut values = vec![0.0_f32; tensor.numel()];
    tensor.f_contiguous()?.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grouping::{Distance, RetrievalIndex};

    fn decoded(png: &[u8]) -> RgbImage {
        image::load_from_memory(png).unwrap().into_rgb8()
    }

    #[test]
    fn groups_light_up_what_they_look_at() {
        let images = Tensor::ones([1, 1, 2, 4], (Kind::Float, Device::Cpu));
        let attention = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 1.0]).view([1, 2, 1, 2]);
        let sheet = decoded(&attention_sheet(&images, &attention, 2).unwrap());
        // Three cells of 4 × 2 pixels, doubled, with a gap of 2 around.
        assert_eq!(sheet.dimensions(), (3 * (8 + 4), 4 + 4));
        let at = |cell: u32, x: u32| sheet.get_pixel(cell * 12 + 2 + x, 2).0[0];
        assert_eq!((at(0, 0), at(0, 7)), (255, 255));
        assert_eq!((at(1, 0), at(1, 7)), (255, 51));
        assert_eq!((at(2, 0), at(2, 7)), (51, 255));
    }

    #[test]
    fn neighbours_are_framed_by_class() {
        let images = Tensor::zeros([3, 3, 1, 1], (Kind::Float, Device::Cpu));
        let points = Tensor::from_slice(&[0.0_f32, 1.0, 3.0]).view([3, 1]);
        let neighbours = RetrievalIndex::exact(&points, Distance::Euclidean).unwrap().search_itself(2).unwrap();
        let sheet = decoded(&neighbour_sheet(&images, &[0, 0, 1], &neighbours, &[0], 1).unwrap());
        assert_eq!(sheet.dimensions(), (15, 5));
        assert_eq!((*sheet.get_pixel(5, 0), *sheet.get_pixel(10, 0)), (SAME_CLASS, OTHER_CLASS));
        assert_eq!(*sheet.get_pixel(0, 0), BACKGROUND);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let images = Tensor::zeros([2, 1, 2, 2], (Kind::Float, Device::Cpu));
        let attention = Tensor::zeros([1, 2, 1, 1], (Kind::Float, Device::Cpu));
        assert!(attention_sheet(&images, &attention, 1).is_err());
        assert!(attention_sheet(&images.view([1, 2, 2, 2]), &attention, 1).is_err());
        assert!(attention_sheet(&images.narrow(0, 0, 1), &attention, 0).is_err());
        let one = images.narrow(0, 0, 1);
        for size in [[1, 0, 1, 1], [1, 2, 0, 1], [1, 2, 1, 0]] {
            let none = Tensor::zeros(size, (Kind::Float, Device::Cpu));
            assert!(matches!(attention_sheet(&one, &none, 1), Err(Error::Empty("attention"))), "{size:?}");
        }
        let points = Tensor::from_slice(&[0.0_f32, 1.0]).view([2, 1]);
        let neighbours = RetrievalIndex::exact(&points, Distance::Euclidean).unwrap().search_itself(1).unwrap();
        // A gallery of three, of which two are drawn.
        let gallery = Tensor::from_slice(&[5.0_f32, 5.0, 0.0]).view([3, 1]);
        let further = RetrievalIndex::exact(&gallery, Distance::Euclidean).unwrap().search(&points, 1).unwrap();
        let refused = neighbour_sheet(&images, &[0, 0], &further, &[0], 1).unwrap_err().to_string();
        assert_eq!(refused, "neighbours is 2, expected positions below 2");
        assert!(neighbour_sheet(&images, &[0], &neighbours, &[0], 1).is_err());
        assert!(neighbour_sheet(&images, &[0, 0], &neighbours, &[2], 1).is_err());
    }
}
