// A colour for each label or group: hues far apart for those that follow each other, all equally bright to the eye.

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Calls `changed()` when the system turns to light or dark. */
export function onScheme(changed) {
  dark.addEventListener("change", changed);
}

/** The colour of category `number` as [red, green, blue], 0..255. */
export function categoryColour(number) {
  const hue = 265 + number * 137.508;
  const step = Math.floor(number / 9) % 3;
  const lightness = (dark.matches ? 0.76 : 0.62) + [0, -0.13, 0.09][step];
  return fromOklch(lightness, 0.155 - 0.02 * step, hue);
}

export const noColour = () => (dark.matches ? [96, 96, 96] : [178, 178, 178]);

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/** As a pixel without its opacity, in the order in which a canvas keeps them. */
export const pixel = ([red, green, blue]) => red | (green << 8) | (blue << 16);

// Björn Ottosson, "A perceptual color space for image processing" (2020).
function fromOklch(lightness, chroma, degrees) {
  const angle = (degrees * Math.PI) / 180;
  const a = chroma * Math.cos(angle);
  const b = chroma * Math.sin(angle);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((part) => Math.round(255 * gamma(Math.min(Math.max(part, 0), 1))));
}

const gamma = (part) => (part <= 0.0031308 ? 12.92 * part : 1.055 * part ** (1 / 2.4) - 0.055);
