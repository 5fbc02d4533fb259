// A table that is wider than the page can be scrolled with the keyboard. The theme puts tables into boxes late.
const reach = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
};
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
new ResizeObserver(reach).observe(document.body);
