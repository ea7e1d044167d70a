showHead();
setUpTable();
showFigures();
showClasses();
showCompare();
