showHead();
showClasses();
setUpQueries();
