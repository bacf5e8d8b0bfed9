/** Which texts stand out less than WCAG 2 AA asks for (4.5, or 3 if large)? */
() => {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((value, at) => value * a + below[at] * (1 - a));
  const luminance = (color) => {
    const [r, g, b] = color.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const under = node.parentElement ? ground(node.parentElement) : [255, 255, 255];
    return over(channels(getComputedStyle(node).backgroundColor), under);
  };
  const faint = [];
  for (const node of document.querySelectorAll("body *")) {
    const words = [...node.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE && child.data.trim());
    const style = getComputedStyle(node);
    if (!words.length || !node.checkVisibility() || node.closest(":disabled, noscript")) continue;
    const below = ground(node);
    const [light, dark] = [luminance(over(channels(style.color), below)), luminance(below)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)} ${node.tagName} .${node.className} ${node.textContent.slice(0, 40)}`);
  }
  return faint;
};
